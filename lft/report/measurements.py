"""Read measurements.csv in blocks, keeping only the requested metrics."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pandas as pd
from pandas.api.types import union_categoricals

from lft.errors import UsageError
from lft.metrics import metric_of
from lft.results.schema import Measurement
from lft.storage.csv import read_rows

CELL = ("experiment", "trained_on", "tested_on", "method", "order", "metric")
"""Columns that the rows are grouped by."""
BLOCK = 1 << 24
"""Bytes of the file that are in memory as text."""

Groups = dict[tuple[str, ...], pd.DataFrame]
"""Seed, task, step and value, by the columns of :data:`CELL`."""


def measured_groups(path: Path, metrics: frozenset[str]) -> Groups:
    """Read seed, task, step and value of each cell and metric.

    The file is read in blocks, so memory grows with the rows of these metrics and not with the
    file. The last two results are cached, because one command needs them several times.

    Args:
        path: measurements.csv.
        metrics: metrics to keep.

    Raises:
        UsageError: the file is missing or damaged.
    """
    return _groups(path, path.stat().st_mtime_ns if path.is_file() else 0, metrics)


def summarised_groups(summary: pd.DataFrame, metrics: frozenset[str]) -> Groups:
    """Return the groups of summary.csv, with the mean over test tasks as a single task.

    Args:
        summary: rows of summary.csv.
        metrics: metrics to keep.

    Raises:
        UsageError: a test task diverged, so a mean is unknown.
    """
    rows = summary[summary["metric"].isin(metrics)]
    lost = rows["mean"].isna() & rows["metric"].astype(str).map(_nan_is_divergence).astype(bool)
    if lost.any():
        raise UsageError(
            "test tasks diverged, and summary.csv does not say which: verdicts need "
            "measurements.csv; run lft aggregate where the runs' measurements are"
        )
    means = rows[["seed", "step"]].assign(
        value=rows["mean"], task=pd.Categorical(["mean"] * len(rows))
    )
    groups = means.groupby([rows[key].astype(str) for key in CELL], observed=True)
    return {tuple(map(str, key)): group for key, group in groups}


@lru_cache(maxsize=2)
def _groups(path: Path, _written: int, metrics: frozenset[str]) -> Groups:
    pieces: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    for block in _blocks(path):
        wanted = block[block["metric"].isin(metrics)]
        for key, rows in wanted.groupby(list(CELL), observed=True):
            cell = tuple(map(str, key))
            pieces.setdefault(cell, []).append(rows.drop(columns=list(CELL)))
    return {cell: _joined(pieces.pop(cell)) for cell in list(pieces)}


def _nan_is_divergence(metric: str) -> bool:
    return metric_of(metric).nan == "diverged"


def _joined(pieces: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the rows of one cell.

    Its tasks become categories in alphabetical order, so that two cells pair whatever blocks they
    came from.
    """
    tasks = [piece["task"].cat.remove_unused_categories() for piece in pieces]
    columns = [piece.drop(columns="task") for piece in pieces]
    task = union_categoricals(tasks, sort_categories=True)
    return pd.concat(columns, ignore_index=True).assign(task=task)


def _blocks(path: Path) -> Iterator[pd.DataFrame]:
    """Yield the file's rows in blocks."""
    import pyarrow as pa
    from pyarrow import csv

    text = pa.dictionary(pa.int32(), pa.string())
    types = dict.fromkeys(Measurement._fields, text)
    types |= {"seed": pa.int64(), "step": pa.int64(), "value": pa.float64()}
    options = csv.ConvertOptions(column_types=types, null_values=[""])
    try:
        with csv.open_csv(path, csv.ReadOptions(block_size=BLOCK), None, options) as reader:
            if reader.schema.names != list(Measurement._fields):
                raise ValueError("unexpected columns")
            for batch in reader:
                if any(column.null_count for column in batch.columns):
                    raise ValueError("an empty field")
                yield batch.to_pandas()
    except (OSError, ValueError):
        read_rows(path, Measurement._fields)  # reports the line that is wrong
        raise
