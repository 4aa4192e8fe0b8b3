"""From the measurements of many runs to one file, and to a compact summary of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.metrics import metric_of
from lft.results.folder import Results
from lft.results.manifest import RunManifest
from lft.results.schema import CELL_COLUMNS, SUMMARY_COLUMNS, THEORY_COLUMNS, Measurement
from lft.storage.atomic import atomic_path
from lft.storage.csv import join_csv, read_bytes, read_rows, write_rows

KEYS = ["experiment", "trained_on", "tested_on", "method", "order", "seed", "metric", "step"]


def aggregate(profile: Profile, folder: Path) -> None:
    """Write measurements.csv, summary.csv, cells.csv and theory.csv from what there is.

    One file of measurements is in memory at a time.

    Raises:
        UsageError: nothing has been measured yet, a file is damaged, or a run was made under other
            settings than those of the profile.
    """
    results, summaries = Results(profile, folder), []
    parts = evaluated(results)
    if not parts:
        raise UsageError(
            f"nothing has been measured in {folder} yet; run snakemake reproduce first"
        )
    joined = folder / "measurements.csv"
    with atomic_path(joined) as temporary, temporary.open("wb") as file:
        file.write(",".join(Measurement._fields).encode() + b"\n")
        for path, runs in parts.items():
            frame, text = _rows_of(path, runs)
            summaries.append(summarise(frame))
            file.write(text)
    summary = _in_order(pd.concat(summaries, ignore_index=True))
    write_rows(folder / "summary.csv", SUMMARY_COLUMNS, summary.itertuples(index=False))
    write_rows(folder / "cells.csv", CELL_COLUMNS, _cells(results, summary))
    for path in results.theory_files():
        read_rows(path, THEORY_COLUMNS)
    join_csv(folder / "theory.csv", THEORY_COLUMNS, results.theory_files())


def evaluated(results: Results) -> dict[Path, list[Run]]:
    """The files that have measurements, each with the runs that it is to be read for."""
    parts: dict[Path, list[Run]] = {}
    for name in results.profile.experiments:
        for run in results.profile.runs(name):
            results.manifest(run)  # made under these settings, or refused
            path = results.measurement_file(run)
            if path is not None:
                parts.setdefault(path, []).append(run)
    return parts


def _rows_of(path: Path, runs: list[Run]) -> tuple[pd.DataFrame, bytes]:
    """The measurements of some runs, as a table and as the lines of a CSV file."""
    frame, text = read_rows(path, Measurement._fields), read_bytes(path)
    if not text.endswith(b"\n"):
        raise UsageError(
            f"{path}: its last line is cut; delete the file and run the workflow again"
        )
    wanted = {(run.method, run.seed) for run in runs}
    kept = [key in wanted for key in zip(frame["method"], frame["seed"], strict=True)]
    if all(kept):
        return frame, text.partition(b"\n")[2]
    frame = frame[kept]
    lines = frame.to_csv(
        index=False, header=False, float_format="%.7g", na_rep="nan", lineterminator="\n"
    )
    return frame, lines.encode()


def _in_order(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted by their keys; names keep the order in which they first appear."""
    ranks = {
        key: summary[key] if summary[key].dtype == "int64" else pd.factorize(summary[key])[0]
        for key in KEYS
    }
    return summary.iloc[pd.DataFrame(ranks).sort_values(KEYS, kind="stable").index]


def summarise(measurements: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over test tasks, for every seed, metric and step.

    A task whose value is NaN makes the mean NaN, so a diverged task is seen. The exception
    are metrics whose NaN means that something was never reached (:attr:`lft.metrics.Metric.nan`):
    their mean is over the tasks that reached it, and ``tasks`` counts those.
    """
    groups = measurements.groupby(KEYS, observed=True, sort=True)["value"]
    frame = groups.agg(mean="mean", std="std", tasks="count", size="size").reset_index()
    counts = frame["metric"].astype(str).map(_nan_is_divergence).astype(bool)
    diverged = (frame["tasks"] < frame["size"]) & counts
    frame.loc[diverged, ["mean", "std"]] = float("nan")
    return frame[list(SUMMARY_COLUMNS)]


def _nan_is_divergence(metric: str) -> bool:
    return metric_of(metric).nan == "diverged"


def _cells(results: Results, summary: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
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
    if manifest is None:
        return "missing", "not meta-trained yet"
    if manifest.status == "diverged":
        return "diverged", manifest.reason
    return "missing", "not evaluated yet"
