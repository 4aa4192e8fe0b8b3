"""Measurements of the paper's theory: Statement 1, Theorem 1 and the remark on vanishing gradients.

docs/theory.md derives what is measured here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lft.config import Profile
from lft.results.records import THEORY_COLUMNS, manifest, write_json, write_rows
from lft.theory import statement1, theorem1, vanishing


def measure(profile: Profile, experiment: str, results: Path) -> None:
    """Write theory/<experiment>.csv, rows of THEORY_COLUMNS, and its manifest beside it.

    Raises:
        UsageError: the fine-tuners that the measurement looks at have not been trained.
    """
    profile.experiment(experiment)
    began = time.perf_counter()
    path = results / "theory" / f"{experiment}.csv"
    write_rows(path, THEORY_COLUMNS, _rows(profile, experiment, results))
    write_json(
        path.with_suffix(".json"),
        manifest(
            profile.theory_inputs(experiment),
            experiment=experiment,
            seconds=round(time.perf_counter() - began, 3),
            device=profile.device,
        ),
    )


def _rows(profile: Profile, experiment: str, results: Path) -> Iterator[tuple[Any, ...]]:
    if experiment in profile.theory.gap.experiments:
        yield from statement1.measure(profile, experiment, results)
        yield from theorem1.measure(profile, experiment, results)
    if experiment in profile.theory.vanishing.experiments:
        yield from vanishing.measure(profile, experiment, results)
