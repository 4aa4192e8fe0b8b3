"""What a run leaves behind: measurement rows, manifests and weights, each written atomically.

A result folder ``results/<profile>/`` holds::

    data/<source>.safetensors              images (lft.data)
    victims/<source>.safetensors, .json    victim weights, clean accuracy
    runs/<experiment>/<trained_on>/<method>-<order>/seed<n>/
        weights.safetensors                meta-parameters: stages initial, halfway, best
        history.csv                        meta-training: HISTORY_COLUMNS
        run.json                           manifest; status "ok" or "diverged"
    runs/<experiment>/<trained_on>/<method>-<order>/, or all-<order>/ for all methods together
        measurements.csv                   test tasks of all seeds; may be gzipped (.csv.gz)
        examples.safetensors               attacks only: pictures for the report
    theory/<experiment>.csv                rows of THEORY_COLUMNS
    measurements.csv                       all measurements.csv, joined
    summary.csv                            means over test tasks: SUMMARY_COLUMNS
    cells.csv                              status of every cell: CELL_COLUMNS
    theory.csv                             all theory/*.csv, joined
    claims.csv                             a verdict on every claim: CLAIM_COLUMNS
    alternatives.csv                       what variants change: ALTERNATIVE_COLUMNS
    tables/, figures/                      each as CSV and in forms for papers and pages
    report.html, verdicts.md               the page, and its table of verdicts for a README
    search.csv                             hyper-parameter searches only: SEARCH_COLUMNS
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from lft.errors import UsageError
from lft.paths import CHECKOUT
from lft.storage.atomic import atomic_path, write_text

if TYPE_CHECKING:
    import pandas as pd


class Measurement(NamedTuple):
    """One number of one test task after one fine-tuning step.

    ``task`` counts the test tasks of a family (the same tasks for every method and seed index),
    prefixed by the family's name; ``step`` counts fine-tuning steps from 0 (before the first).
    """

    experiment: str
    trained_on: str
    tested_on: str
    method: str
    order: str
    seed: int
    task: str
    step: int
    metric: str
    value: float


HISTORY_COLUMNS = ("meta_step", "family", "loss", "validation", "error", "outer")
"""Outer loss of each meta-step, the untrained start being step 0; after a validation round also the
meta-validation score, its standard error over tasks, and the outer loss of these tasks without any
cap. The loss of step 0 is that of the meta-validation tasks."""

FORMER_HISTORY_COLUMNS = HISTORY_COLUMNS[:4]
"""Those of runs that were kept before ``error`` and ``outer`` were recorded."""

SEARCH_COLUMNS = (
    "experiment", "trained_on", "method", "order", "settings",
    "score", "seeds", "diverged", "seconds", "chosen",
)  # fmt: skip
"""One combination of a hyper-parameter search: ``score`` is the meta-validation score, averaged
over seeds, NaN if one had none; ``chosen`` marks the lowest of each method, training mixture and
order; ``seconds`` is the time of one meta-training."""

CELL_COLUMNS = (
    "experiment",
    "trained_on",
    "tested_on",
    "method",
    "order",
    "seed",
    "status",
    "reason",
)
"""Status is ``ok``, ``diverged``, ``missing`` or ``not applicable``."""

SUMMARY_COLUMNS = (
    "experiment",
    "trained_on",
    "tested_on",
    "method",
    "order",
    "seed",
    "metric",
    "step",
    "mean",
    "std",
    "tasks",
)
"""Mean and standard deviation of a metric over the test tasks of one seed."""

CLAIM_COLUMNS = (
    "claim",
    "metric",
    "paper",
    "ours",
    "difference",
    "low",
    "high",
    "interval",
    "n_seeds",
    "p",
    "verdict",
    "reason",
    "figure",
    "text",
    "place",
    "seconds",
)
"""One claim of the paper; ``low`` and ``high`` bound ``difference``, ``p`` is Holm-adjusted,
``seconds`` is what the meta-trainings or theory measurements that it rests on took."""

ALTERNATIVE_COLUMNS = (
    "experiment", "trained_on", "tested_on", "order", "method", "alternative", "label", "settings",
    "metric", "step", "base", "mean", "difference", "low", "high", "interval", "n_seeds",
)  # fmt: skip
"""What another choice changed: ``alternative`` is a variant of ``method``, or a method that differs
from it in the meta-gradient or in learning the initialisation, too; ``settings`` is what a variant
sets, as JSON; ``base`` and ``mean`` are the outcomes of ``method`` and ``alternative``, means over
tasks and seeds; ``difference``, ``low`` and ``high`` are paired by seed."""

THEORY_COLUMNS = (
    "experiment", "stage", "quantity", "method", "seed",
    "steps", "support", "query", "task", "value",
)  # fmt: skip
"""One theory measurement: ``quantity`` is gap, variance_part, fitting_square, gradient_square,
gradient_kept, bound, sigma, jacobian, statement1_error or meta_gradient_norm; ``stage`` is initial,
halfway or best; ``support`` and ``query`` are |D_tr| and |D_val|; ``steps`` is K."""


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, keys in the order given."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path | str, **needed: type) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        needed: keys that it must have, with the type of their values; an int passes for a float.

    Raises:
        UsageError: the file is missing, holds no JSON object or lacks what is needed.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} does not hold a JSON object")
    for key, kind in needed.items():
        expected = (float, int) if kind is float else kind
        if key not in content or not isinstance(content[key], expected):
            raise UsageError(
                f"{path}: {key!r} is missing or no {kind.__name__}; delete the file and run the "
                "workflow again"
            )
    return content


def write_rows(path: Path | str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically; floats keep seven significant digits."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(
            [f"{value:.7g}" if isinstance(value, float) else value for value in row] for row in rows
        )


def write_frame(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a table as CSV, atomically; floats keep seven significant digits, as the last of
    sixteen depend on the processor."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.7g", lineterminator="\n")


def read_rows(path: Path | str, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file that :func:`write_rows` wrote; column ``value`` as float, ``seed``, ``step``
    and ``steps`` as integers, the rest as text. An empty ``validation`` is NaN.

    Raises:
        UsageError: the file is missing, has other columns or a malformed row; the message names
            the file and the line.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    text = pa.dictionary(pa.int32(), pa.string())
    types = {name: _NUMBERS.get(name, text) for name in columns}
    try:
        # No word stands for a missing value, "NA" is a text; an empty number is a damaged one.
        options = arrow_csv.ConvertOptions(column_types=types, null_values=[""])
        with _opened(Path(path)) as file:
            table = arrow_csv.read_csv(file, convert_options=options)
        if table.column_names != list(columns):
            raise ValueError("unexpected columns")
        if any(table[name].null_count for name in columns if name not in _MAY_BE_EMPTY):
            raise ValueError("an empty number")
    except ValueError as error:  # pyarrow.ArrowInvalid and UnicodeDecodeError are kinds of it
        raise UsageError(_locate_bad_row(Path(path), columns, error)) from None
    except _UNREADABLE as error:
        raise UsageError(f"cannot read {path}: {_why(error)}") from None
    frame: pd.DataFrame = table.to_pandas()
    return frame


def read_history(path: Path | str) -> pd.DataFrame:
    """Read a ``history.csv``, of a former layout too; what it does not tell is NaN.

    Raises:
        UsageError: as :func:`read_rows`.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            former = file.readline().strip() == ",".join(FORMER_HISTORY_COLUMNS)
    except (OSError, UnicodeDecodeError):
        former = False  # read_rows says what is wrong
    frame = read_rows(path, FORMER_HISTORY_COLUMNS if former else HISTORY_COLUMNS)
    return frame.reindex(columns=list(HISTORY_COLUMNS))


_MAY_BE_EMPTY = {"validation", "error", "outer"}
_NUMBERS = {
    "loss": "float64",
    "validation": "float64",
    "error": "float64",
    "outer": "float64",
    "value": "float64",
    "mean": "float64",
    "std": "float64",
    "base": "float64",
    "difference": "float64",
    "low": "float64",
    "high": "float64",
    "p": "float64",
    "seconds": "float64",
    "meta_step": "int64",
    "n_seeds": "int64",
    "seed": "int64",
    "step": "int64",
    "steps": "int64",
    "tasks": "int64",
}


def _locate_bad_row(path: Path, columns: Sequence[str], error: Exception) -> str:
    """Name the first line of a CSV file that does not have the columns or types it should."""
    advice = "delete the file and run the workflow again"
    try:
        with io.TextIOWrapper(_opened(path), encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != tuple(columns):
                return f"{path} line 1: expected the columns {','.join(columns)}; {advice}"
            for row in reader:
                line = f"{path} line {reader.line_num}"
                if len(row) != len(columns):
                    return f"{line}: {len(row)} fields instead of {len(columns)}; {advice}"
                for name, text in zip(columns, row, strict=True):
                    if not _fits(name, text):
                        return f"{line}: {name} is {text[:40]!r}, not a number; {advice}"
    except (UnicodeDecodeError, csv.Error) as problem:
        return f"{path} is damaged ({problem}); {advice}"
    return f"{path} cannot be read ({' '.join(str(error).split())[:120]}); {advice}"


def _fits(column: str, text: str) -> bool:
    """Whether a text can stand in a column."""
    kind = _NUMBERS.get(column)
    if column in _MAY_BE_EMPTY and not text:
        return True
    try:
        number = {"float64": float, "int64": int}[kind](text) if kind else 0
    except ValueError:
        return False
    return kind is None or ("_" not in text and (kind == "float64" or abs(number) < 2**63))


def stored(path: Path) -> Path:
    """The file, or where there is none the gzipped one that a kept run has instead."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path


def measurements_of(*folders: Path) -> Path:
    """measurements.csv, plain or gzipped, of the first of these folders that has it."""
    found = [stored(folder / "measurements.csv") for folder in folders]
    return next((path for path in found if path.is_file()), found[0])


def _opened(path: Path) -> BinaryIO:
    """A file for reading bytes, decompressed if its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


_UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading a plain or gzipped file raises."""


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it is damaged"


def join_csv(path: Path | str, columns: Sequence[str], parts: Iterable[Path]) -> None:
    """Concatenate CSV files with the same header into one, without parsing their rows.

    Parts whose names end in .gz are decompressed.

    Raises:
        UsageError: a part cannot be read, has other columns or ends in the middle of a line.
    """
    header = f"{','.join(columns)}\n".encode()
    with atomic_path(path) as temporary, temporary.open("wb") as joined:
        joined.write(header)
        for part in parts:
            try:
                with _opened(part) as file:
                    content = file.read()
            except _UNREADABLE as error:
                raise UsageError(
                    f"cannot read {part}: {_why(error)}; run the workflow again"
                ) from None
            if not (content.startswith(header) and content.endswith(b"\n")):
                raise UsageError(
                    f"{part}: expected the columns {','.join(columns)} and a complete last line; "
                    "delete the file and run the workflow again"
                )
            joined.write(content[len(header) :])


def manifest(settings: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """Provenance of one run: commit, versions, machine, resolved settings and the facts given.

    The commit is that of the checkout that the package runs from, None for an installed wheel.
    """
    import platform
    import subprocess

    def git(*arguments: str) -> str | None:
        if CHECKOUT is None:
            return None
        command = ["git", "-C", str(CHECKOUT), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    packages = ("lft", "torch", "numpy", "pandas", "scipy", "snakemake")
    return {
        **facts,
        "commit": git("rev-parse", "HEAD"),
        "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "versions": {name: found for name in packages if (found := _version(name))},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "settings": settings,
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()
