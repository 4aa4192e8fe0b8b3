"""Numbers in the tables: ours over seeds, and the paper's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lft.config import Experiment, Profile
from lft.methods import Method
from lft.metrics import Metric, metric_of
from lft.report.claims import load_claims, load_paper
from lft.report.claims.model import STEP
from lft.report.scales import ARRIVAL, first_full_by_seed
from lft.report.statistics import NOTHING, UNBOUNDED, Interval, mean_interval
from lft.report.tables.table import Key, TableCell
from lft.results.folder import Results
from lft.results.manifest import RunManifest
from lft.results.schema import CELL_COLUMNS, SUMMARY_COLUMNS
from lft.results.trained import recorded, untrained
from lft.storage.csv import read_rows
from lft.storage.json import read_json

FAILURES = {"diverged": "seeds diverged", "untrained": "seeds untrained"}
"""Columns that count failed seeds, with their headers."""


class Numbers:
    """Numbers of one result folder, by :class:`Key`.

    Args:
        profile: settings.
        results: the profile's result folder.
    """

    def __init__(self, profile: Profile, results: Path) -> None:
        self.profile = profile
        self.results = results
        self.folder = Results(profile, results)
        self.paper = load_paper()
        scales = load_claims().metrics
        self._shares = {name for name, scale in scales.items() if scale.scale == "points"}
        keys = list(Key._fields)
        summary = read_rows(results / "summary.csv", SUMMARY_COLUMNS)
        cells = read_rows(results / "cells.csv", CELL_COLUMNS)
        self.summary = dict(list(summary.groupby(keys, observed=True)))
        self.planned = dict(list(cells.groupby(keys[:-1], observed=True)))

    def cell(self, key: Key, at: int | None = None) -> TableCell:
        """Return one of our numbers over seeds, beside the paper's.

        Args:
            key: identifies the number.
            at: fine-tuning step; by default that of the paper's tables.
        """
        printed, value = self._printed(key)
        planned = self.planned[key[:-1]]
        status = planned["status"].astype(str)
        rows = self.summary.get(key)
        if (status == "not applicable").all():
            reason = str(planned["reason"].iloc[0])
            return TableCell(key, status.iloc[0], status.iloc[0], reason, NOTHING, printed, value)
        diverged = int((status == "diverged").sum())
        if rows is None:
            word = "diverged" if diverged else "missing"
            note = _note(0, len(status), diverged)
            return TableCell(key, word, word, note, NOTHING, printed, value)
        testing = self.profile.experiments[key.experiment].testing
        if key.metric == ARRIVAL:
            ours, note, interval = self._arrival(
                key, rows, note=_note(len(rows), len(status), diverged)
            )
            worst = "ok" if len(rows) == len(status) else "diverged" if diverged else "missing"
            return TableCell(key, ours, worst, note, interval, printed, value, testing.steps)
        step = testing.written(STEP) if at is None else at
        rows = rows[rows["step"] == step]
        worst = "ok" if len(rows) == len(status) else "diverged" if diverged else "missing"
        note = _note(len(rows), len(status), diverged)
        interval = mean_interval(rows["mean"], bounds=self._bounds(key.metric))
        if np.isfinite(interval.mean):
            ours = _number(interval, metric_of(key.metric))
        else:
            ours = worst = "diverged"
            note += ", test tasks diverged"
        return TableCell(key, ours, worst, note, interval, printed, value, step)

    def _arrival(self, key: Key, rows: pd.DataFrame, note: str) -> tuple[str, str, Interval]:
        """Average the first step with a mean ASR of 100 %, over the seeds that reach it.

        The note has the share of tasks that ever arrive and the restricted mean of their first
        step.
        """
        testing = self.profile.experiments[key.experiment].testing
        curves = self.summary[key._replace(metric="asr")]
        first = first_full_by_seed(curves)
        full = first[np.isfinite(first)]
        count = self._tasks(key) * len(rows)
        arrived = float((rows["mean"].fillna(0) * rows["tasks"]).sum())
        late = (count - rows["tasks"].sum()) * testing.steps
        note += f", {rows['tasks'].sum() / count:.0%} of tasks get there"
        note += f", restricted mean {(arrived + late) / count:.0f} steps"
        if full.empty:
            return "never", note, NOTHING
        interval = mean_interval(full)
        if len(full) < len(rows):
            note = f"{len(full)} of {len(rows)} seeds, {note}"
        return _number(interval, metric_of(key.metric)), note, interval

    def _bounds(self, metric: str) -> tuple[float, float]:
        """Return the smallest and largest possible mean."""
        return (0.0, 1.0) if metric in self._shares else UNBOUNDED

    def _tasks(self, key: Key) -> int:
        """Count the test tasks of a mixture, an equal number from each of its families."""
        names = key.tested_on.split("+")
        return self.profile.experiments[key.experiment].testing.tasks // len(names) * len(names)

    def failures(self, key: Key) -> TableCell:
        """Count the meta-trainings of a row that diverged, or failed the test for trained."""
        made = self._made(key)
        if key.metric == "diverged":
            return _count(key, [manifest.status == "diverged" for manifest in made], "")
        return _count(key, [untrained(recorded(self.folder, m.run)) for m in made], "not recorded")

    def check(self, key: Key) -> TableCell:
        """Count the meta-trainings of a row that pass the check named by ``key.metric``.

        It is "not shown" if too few meta-validations, or no longer rerun, leave the check open.
        """
        found = [recorded(self.folder, manifest.run) for manifest in self._made(key)]
        checks = [check for checks in found for check in checks if check.name == key.metric]
        lost = any(math.isnan(check.value) or math.isnan(check.limit) for check in checks)
        otherwise = "not recorded" if lost else "not shown"
        return _count(key, [check.passed for check in checks], otherwise)

    def _made(self, key: Key) -> list[RunManifest]:
        """Return the existing meta-trainings of a row; none if the method has nothing to train."""
        runs = [
            run
            for run in self.profile.runs(key.experiment, applicable_only=False)
            if (run.trained_on, run.method, run.order) == (key.trained_on, key.method, key.order)
        ]
        experiment = self.profile.experiments[key.experiment]
        learned = experiment.base_method(key.method).learns != "step_size"
        manifests = filter(None, map(self.folder.manifest, runs))
        return list(manifests) if learned or key.metric == "diverged" else []

    def change(self, key: Key, base: Key) -> TableCell:
        """Return a number minus that of the method that it changes, paired by seed.

        Args:
            key: identifies the number.
            base: the same of the changed method.
        """
        metric, named = metric_of(key.metric), key._replace(metric=f"{key.metric}_change")
        if key == base:
            return TableCell(named, "–", "ok", "")
        step = self.cell(key).step
        means = [
            rows[rows["step"] == step].set_index("seed")["mean"]
            for rows in (self.summary.get(key), self.summary.get(base))
            if rows is not None
        ]
        difference = (means[0] - means[1]).dropna() if len(means) == 2 else pd.Series(dtype=float)
        note = _note(len(difference), len(self.planned[key[:-1]]), 0)
        interval = mean_interval(difference)
        if not np.isfinite(interval.mean):
            word = "missing" if difference.empty else "diverged"
            return TableCell(named, word, word, note)
        sign = "+" if interval.mean > 0 else ""
        return TableCell(named, sign + _number(interval, metric), "ok", note, interval, step=step)

    def cost(self, key: Key, quantity: Metric) -> TableCell:
        """Average the cost of the meta-trainings behind a cell, from their manifests."""
        wanted = (key.trained_on, key.method, key.order)
        runs = self.profile.runs(key.experiment)
        paths = [
            self.results / run.folder / "run.json"
            for run in runs
            if (run.trained_on, run.method, run.order) == wanted
        ]
        found = (read_json(path).get(quantity.name) for path in paths if path.is_file())
        values = [float(value) for value in found if isinstance(value, int | float)]
        interval, key = mean_interval(values), key._replace(metric=quantity.name)
        note = _note(len(values), len(paths), 0)
        if not values:
            return TableCell(key, "missing", "missing", note)
        return TableCell(key, _number(interval, quantity), "ok", note, interval)

    def _printed(self, key: Key) -> tuple[str, float]:
        """Return the paper's number as printed and as a number; its tables are first-order."""
        where = (key.trained_on, key.tested_on, key.method, key.metric)
        if key.order != "first" or where not in self.paper:
            return "–", np.nan
        row = self.paper[where]
        return row["printed"] + ("†" if row["note"] else ""), float(row["value"])

    def changes(self, name: str, experiment: Experiment) -> Iterator[tuple[Key, Key]]:
        """Yield the keys of each alternative and the method it changes, in the first mixtures."""
        where = Key(name, experiment.train_on[0], experiment.test_on[0], "", "", "")
        for method, base in ablated(experiment).items():
            for order in experiment.orders:
                key = where._replace(method=method, order=order)
                yield key, key._replace(method=base)


def ablated(experiment: Experiment) -> dict[str, str]:
    """Map each alternative to the method that it changes, which comes first and maps to itself.

    Alternatives are variants, and methods that differ from an earlier one only in the meta-gradient
    or in also learning the initialisation.
    """
    bases: dict[str, str] = {}
    for name in experiment.methods:
        method = experiment.base_method(name)
        bases[name] = next(
            base for base in experiment.methods if _changes(method, experiment.base_method(base))
        )
    bases |= {name: variant.method for name, variant in experiment.variants.items()}
    changed = {base for name, base in bases.items() if name != base}
    kinds = [base for base in dict.fromkeys(bases.values()) if base in changed]
    return {name: base for base in kinds for name in bases if bases[name] == base}


def _changes(method: Method, base: Method) -> bool:
    """Return whether a method is an alternative to another, or that method itself."""
    learned = method.learns == "both" and base.learns == "finetuner"
    alike = (method.tuner, method.outer) == (base.tuner, base.outer)
    return method.differs_only_in_meta_gradient(base) or (learned and alike)


def _count(key: Key, words: Sequence[bool | None], otherwise: str) -> TableCell:
    """Count the known words that are true; the text is ``otherwise`` if none is known."""
    known = [word for word in words if word is not None]
    if not known:
        return TableCell(key, otherwise if words or otherwise == "not shown" else "–", "ok", "")
    count = Interval(sum(known), np.nan, np.nan, len(known), "")
    return TableCell(key, f"{sum(known)} of {len(known)}", "ok", "", count)


def _number(interval: Interval, metric: Metric) -> str:
    value = f"{interval.mean * metric.factor:.{metric.decimals}f}"
    if interval.cut:
        low, high = (f"{end * metric.factor:.{metric.decimals}f}" for end in interval[1:3])
        return f"{value} [{low}, {high}]{metric.unit}"
    if np.isfinite(interval.half_width):
        value += f" ± {interval.half_width * metric.factor:.{metric.decimals}f}"
    return value + metric.unit


def _note(n: int, planned: int, diverged: int) -> str:
    note = f"n = {n}" if n == planned else f"n = {n}/{planned}"
    return f"{note}, {diverged} diverged" if diverged else note
