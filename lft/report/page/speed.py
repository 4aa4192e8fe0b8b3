"""Speed of the kernels: the benchmarks in results/benchmarks, a file per processor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lft.errors import UsageError
from lft.paths import kept_benchmarks
from lft.storage.json import read_json


class Bar(NamedTuple):
    """One competitor in a benchmark.

    Attributes:
        name: of the library.
        milliseconds: median CPU time.
        ratio: its time over that of this package.
        share: its time over the longest of its group.
    """

    name: str
    milliseconds: float
    ratio: float
    share: float


class Processor(NamedTuple):
    """Benchmarks of one processor.

    Attributes:
        groups: each benchmark with its competitors, this package first.
    """

    name: str
    torch: str
    file: str
    groups: list[tuple[str, list[Bar]]]


def speed(results: Path) -> Iterator[Processor]:
    """Read the benchmarks beside a result folder.

    Raises:
        UsageError: ``make benchmark`` did not write a file.
    """
    for path in kept_benchmarks(results):
        kept = read_json(path, processor=str, torch=str, groups=dict)
        try:
            groups = [(name, _bars(seconds)) for name, seconds in kept["groups"].items()]
        except (AttributeError, TypeError, ValueError, ZeroDivisionError):
            raise UsageError(
                f"{path}: not what make benchmark writes; restore the file, or delete it"
            ) from None
        file = f"../{path.parent.name}/{path.name}"
        yield Processor(kept["processor"], kept["torch"], file, groups)


def _bars(seconds: dict[str, float]) -> list[Bar]:
    own, *others = seconds.values()
    longest = max([own, *others])
    return [
        Bar(name.replace("_", " "), 1e3 * value, value / own, value / longest)
        for name, value in seconds.items()
    ]
