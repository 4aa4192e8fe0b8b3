"""Join the measurements of all runs into one file, and summarise them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.metrics import metric_of
from lft.results.digests import JOINED, record
from lft.results.folder import Results, rows_of
from lft.results.given import given_rows
from lft.results.manifest import RunManifest
from lft.results.schema import CELL_COLUMNS, SUMMARY_COLUMNS, THEORY_COLUMNS, Measurement
from lft.storage.atomic import atomic_path
from lft.storage.csv import join_csv, read_rows, write_rows

KEYS = ["experiment", "trained_on", "tested_on", "method", "order", "seed", "metric", "step"]
"""Columns that identify a row of summary.csv; the first six identify a cell and seed."""


def aggregate(profile: Profile, folder: Path) -> None:
    """Write measurements.csv, summary.csv, cells.csv, theory.csv, and their digests.

    Only one file of measurements is in memory at a time.

    Args:
        profile: settings.
        folder: the profile's result folder.

    Raises:
        UsageError: nothing has been measured, a file is damaged or was changed by hand, or a run
            was made under settings other than the profile's.
    """
    results, summaries = Results(profile, folder), []
    parts = evaluated(results)
    if not parts:
        raise UsageError(
            f"nothing has been measured in {folder} yet; run snakemake reproduce first"
        )
    given = {path for one in profile.experiments.values() for path in one.measurements.values()}
    joined = folder / "measurements.csv"
    with atomic_path(joined) as temporary, temporary.open("wb") as file:
        file.write(",".join(Measurement._fields).encode() + b"\n")
        for path, runs in parts.items():
            elsewhere = path in given
            frame, text = given_rows(path, runs, profile) if elsewhere else rows_of(path, runs)
            summaries.append(summarise(frame))
            file.write(text)
    summary = _in_order(pd.concat(summaries, ignore_index=True))
    write_rows(folder / "summary.csv", SUMMARY_COLUMNS, summary.itertuples(index=False))
    write_rows(folder / "cells.csv", CELL_COLUMNS, _cells(results, summary))
    for path in results.theory_files():
        read_rows(path, THEORY_COLUMNS)
    join_csv(folder / "theory.csv", THEORY_COLUMNS, results.theory_files())
    record(folder, JOINED, anew=True)


def evaluated(results: Results) -> dict[Path, list[Run]]:
    """Map each file of measurements to the runs to read from it.

    Raises:
        UsageError: a run was made under settings other than the profile's.
    """
    parts: dict[Path, list[Run]] = {}
    for name in results.profile.experiments:
        for run in results.profile.runs(name):
            results.manifest(run)  # refuses a run made under other settings
            path = results.measurement_file(run)
            if path is not None:
                parts.setdefault(path, []).append(run)
    return parts


def _in_order(summary: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by KEYS; names keep the order in which they first appear."""
    ranks = {
        key: summary[key] if summary[key].dtype == "int64" else pd.factorize(summary[key])[0]
        for key in KEYS
    }
    return summary.iloc[pd.DataFrame(ranks).sort_values(KEYS, kind="stable").index]


def summarise(measurements: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean and standard deviation over test tasks, for every seed, metric and step.

    A NaN task makes the mean NaN, so that a diverged task shows. Metrics whose NaN means "never
    reached" are the exception (:attr:`lft.metrics.Metric.nan`): their mean is over the tasks that
    reached it, and ``tasks`` counts those.

    Args:
        measurements: rows of measurements.csv.

    Returns:
        Rows of SUMMARY_COLUMNS.
    """
    groups = measurements.groupby(KEYS, observed=True, sort=True)["value"]
    frame = groups.agg(mean="mean", std="std", tasks="count", size="size").reset_index()
    counts = frame["metric"].astype(str).map(nan_is_divergence).astype(bool)
    diverged = (frame["tasks"] < frame["size"]) & counts
    frame.loc[diverged, ["mean", "std"]] = float("nan")
    return frame[list(SUMMARY_COLUMNS)]


def nan_is_divergence(metric: str) -> bool:
    """Return whether NaN says that a task diverged, and not that it never got somewhere."""
    return metric_of(metric).nan == "diverged"


def _cells(results: Results, summary: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Yield rows of CELL_COLUMNS for every planned cell."""
    keys = ["experiment", "trained_on", "tested_on", "method", "order", "seed"]
    measured = set(summary[keys].drop_duplicates().itertuples(index=False, name=None))
    for run, tested_on, refusal in results.profile.cells():
        key = (run.experiment, run.trained_on, tested_on, run.method, run.order, run.seed)
        if refusal:
            status, reason = "not applicable", refusal
        elif key in measured:
            status, reason = "ok", ""
        else:
            status, reason = _unmeasured(results.manifest(run))
        yield (*key, status, reason)


def _unmeasured(manifest: RunManifest | None) -> tuple[str, str]:
    """Return the status of a cell without measurements, and the reason."""
    if manifest is None:
        return "missing", "not meta-trained yet"
    if manifest.status == "diverged":
        return "diverged", manifest.reason
    return "missing", "not evaluated yet"
