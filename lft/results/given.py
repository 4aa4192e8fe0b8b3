"""Measurements that were made elsewhere, which a profile names under ``measurements``."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pandas as pd

from lft.config import Profile, Run
from lft.config.experiment import Experiment
from lft.errors import UsageError
from lft.metrics import SUPPORT, metric_of
from lft.results.schema import Measurement
from lft.storage.csv import read_rows

CELL = list(Measurement._fields[:6])
"""Columns that identify a cell and seed."""


def given_rows(path: Path, runs: Iterable[Run], profile: Profile) -> tuple[pd.DataFrame, bytes]:
    """Read measurements made elsewhere, and check that they are those of an evaluation.

    Args:
        path: the file.
        runs: runs that the profile takes from it.
        profile: settings.

    Returns:
        The rows as a table, and as lines of CSV without a header.

    Raises:
        UsageError: the file is damaged, its cells, tasks, steps and metrics are not exactly those
            of the runs, or a share is outside [0, 1].
    """
    frame = read_rows(path, Measurement._fields, again="correct the file")
    chosen = set(runs)
    missing = {
        (*run[:2], tested_on, *run[2:])
        for run, tested_on, refusal in profile.cells()
        if run in chosen and refusal is None
    }
    for key, rows in frame.groupby(CELL, observed=True):
        where = f"{path}: {' '.join(map(str, key))}"
        if key not in missing:
            raise UsageError(
                f"{where} is no cell of profile {profile.name!r} that takes its measurements from "
                "this file; correct or remove these rows"
            )
        missing.remove(key)
        _check(where, rows, profile.experiment(str(key[0])), str(key[2]))
    if missing:
        raise UsageError(
            f"{path}: there are no rows of {' '.join(map(str, min(missing)))}; add them, with nan "
            "for missing numbers"
        )
    lines = frame.to_csv(
        index=False, header=False, float_format="%.7g", na_rep="nan", lineterminator="\n"
    )
    return frame, lines.encode()


def _check(where: str, rows: pd.DataFrame, experiment: Experiment, tested_on: str) -> None:
    """Check the tasks, steps and metrics of a cell.

    Raises:
        UsageError: they are not those of an evaluation; the message names the first fault.
    """
    testing, names = experiment.testing, tested_on.split("+")
    tasks = {f"{name}-{i}" for name in names for i in range(testing.tasks // len(names))}
    if odd := tasks ^ set(rows["task"].astype(str)):
        raise UsageError(f"{where}: task {min(odd)!r} is not in both the file and the profile")
    steps = [*range(0, testing.steps + 1, testing.every)]
    if odd := set(rows["step"].tolist()) - set(steps):
        raise UsageError(f"{where}: step {min(odd)} is none of the profile's")
    known = {name for m in experiment.metrics for name in (m.name, f"{m.name}{SUPPORT}")}
    if odd := set(rows["metric"].astype(str)) - known:
        raise UsageError(f"{where}: metric {min(odd)!r} is none of the profile's")
    if experiment.primary not in set(rows["metric"]):
        raise UsageError(f"{where}: there are no rows of the metric {experiment.primary!r}")
    for name, measured in rows.groupby("metric", observed=True):
        metric = metric_of(str(name))
        wanted = set(product(tasks, steps[-1:] if metric.first_of else steps))
        found = [*zip(measured["task"].astype(str), measured["step"].tolist(), strict=True)]
        if different := wanted ^ set(found):
            task, step = min(different)
            number = "too much" if (task, step) in found else "missing; a missing number is nan"
            raise UsageError(f"{where}: {name} of {task} after step {step} is {number}")
        for row in measured[measured.duplicated(["task", "step"])].itertuples():
            raise UsageError(f"{where}: {name} of {row.task} after step {row.step} is there twice")
        if metric.share and not (measured["value"].dropna().between(0, 1)).all():
            raise UsageError(f"{where}: {name} is a share, from 0 to 1, and the file has others")
