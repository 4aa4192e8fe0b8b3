"""From the measurements of many runs to one file, and to a compact summary of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lft.config import Cell, Profile, Run
from lft.errors import UsageError
from lft.results.records import (
    CELL_COLUMNS,
    SUMMARY_COLUMNS,
    THEORY_COLUMNS,
    Measurement,
    join_csv,
    measurements_of,
    read_json,
    read_rows,
    write_rows,
)

KEYS = ["experiment", "trained_on", "tested_on", "method", "order", "seed", "metric", "step"]


def aggregate(profile: Profile, results: Path) -> None:
    """Write measurements.csv, summary.csv, cells.csv and theory.csv from what there is.

    Raises:
        UsageError: nothing has been measured yet, or a file is damaged.
    """
    cells = list(profile.cells())
    files = dict.fromkeys(measurements(profile, cell.run, results) for cell in cells)
    parts = [path for path in files if path.is_file()]
    if not parts:
        raise UsageError(
            f"nothing has been measured in {results} yet; run snakemake reproduce first"
        )
    join_csv(results / "measurements.csv", Measurement._fields, parts)
    summary = summarise(read_rows(results / "measurements.csv", Measurement._fields))
    write_rows(results / "summary.csv", SUMMARY_COLUMNS, summary.itertuples(index=False))
    write_rows(results / "cells.csv", CELL_COLUMNS, _cells(cells, results, summary))
    theory = [
        path
        for name in profile.theory_experiments
        if (path := results / "theory" / f"{name}.csv").is_file()
    ]
    join_csv(results / "theory.csv", THEORY_COLUMNS, theory)


def measurements(profile: Profile, run: Run, results: Path) -> Path:
    """Where a run's measurements lie: where the profile's job writes them, or by themselves."""
    folders = (profile.evaluation(run).evaluation_folder, run.evaluation_folder)
    return measurements_of(*(results / folder for folder in folders))


def summarise(measurements: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over test tasks, for every seed, metric and step.

    A task whose value is NaN makes the mean NaN, so a diverged task is seen. The exception is
    ``first_full``, where NaN means that ASR 100 % was never reached: its mean is over the tasks
    that reached it, and ``tasks`` counts those.
    """
    groups = measurements.groupby(KEYS, observed=True, sort=True)["value"]
    frame = groups.agg(mean="mean", std="std", tasks="count", size="size").reset_index()
    diverged = (frame["tasks"] < frame["size"]) & (frame["metric"] != "first_full")
    frame.loc[diverged, ["mean", "std"]] = float("nan")
    return frame[list(SUMMARY_COLUMNS)]


def _cells(cells: list[Cell], results: Path, summary: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    keys = ["experiment", "trained_on", "tested_on", "method", "order", "seed"]
    measured = set(summary[keys].drop_duplicates().itertuples(index=False, name=None))
    for run, tested_on, refusal in cells:
        key = (run.experiment, run.trained_on, tested_on, run.method, run.order, run.seed)
        if refusal:
            status, reason = "not applicable", refusal
        elif key in measured:
            status, reason = "ok", ""
        else:
            status, reason = _unmeasured(results / run.folder / "run.json")
        yield (*key, status, reason)


def _unmeasured(manifest: Path) -> tuple[str, str]:
    if not manifest.is_file():
        return "missing", "not meta-trained yet"
    content = read_json(manifest)
    if content.get("status") == "diverged":
        return "diverged", str(content.get("reason", ""))
    return "missing", "not evaluated yet"
