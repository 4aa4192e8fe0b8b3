"""From measurements to effects: metrics of cells as arrays, their floors, and which runs failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lft.config import Order, Profile, Run
from lft.report.measurements import measured_groups, summarised_groups
from lft.report.scales import ARRIVAL, Scale, first_full
from lft.report.statistics import ALPHA, Floats, greater_p
from lft.results.folder import Results
from lft.results.trained import recorded, untrained

CellName = tuple[str, str, str, Order]
"""Trained on, tested on, method, order."""


@dataclass(frozen=True)
class Cube:
    """One metric of one cell.

    Attributes:
        values: (seeds, tasks, steps), NaN where nothing was measured.
        tasks: names of the tasks.
        steps: fine-tuning steps.
    """

    values: Floats
    tasks: tuple[str, ...]
    steps: tuple[int, ...]

    def at(self, step: int) -> Floats:
        """Return the values after a step, (seeds, tasks)."""
        return self.values[:, :, self.steps.index(step)]


class Measured:
    """Metrics of a result folder's cells as arrays over (seed, task), and which runs failed.

    Args:
        profile: settings.
        results: the profile's result folder.
        metrics: metrics to read.

    Attributes:
        has_tasks: whether measurements.csv exists. A kept run without it has only the means over
            test tasks of summary.csv, each treated as one task. That is enough for verdicts, which
            rest on these means, but not for results about single tasks.
        status: cell -> seed -> status, from cells.csv.
    """

    def __init__(self, profile: Profile, results: Path, metrics: Sequence[str]) -> None:
        self.profile = profile
        self.folder = Results(profile, results)
        wanted, path = frozenset({*metrics, "asr"}), results / "measurements.csv"
        self.has_tasks = path.is_file() or not (results / "summary.csv").is_file()
        self._groups = (
            measured_groups(path, wanted)
            if self.has_tasks
            else summarised_groups(self.folder.summary, wanted)
        )
        self._cubes: dict[tuple[str, ...], Cube | None] = {}
        self._untrained: dict[Run, bool | None] = {}
        keys = ["experiment", "trained_on", "tested_on", "method", "order"]
        cells = self.folder.cells
        self.status = {
            tuple(map(str, key)): dict(zip(group["seed"], group["status"].astype(str), strict=True))
            for key, group in cells.groupby(keys, observed=True)
        }

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the profile."""
        return self.profile.seeds

    def last_step(self, experiment: str, step: int) -> int:
        """Return the last measured step up to the given one."""
        return self.profile.experiments[experiment].testing.written(step)

    def steps(self, experiment: str) -> list[int]:
        """Return the steps whose metrics are written."""
        testing = self.profile.experiments[experiment].testing
        return list(range(0, testing.steps + 1, testing.every))

    def cube(self, experiment: str, cell: CellName, metric: str) -> Cube | None:
        """Return the measurements of a cell; None if there are none."""
        key = (experiment, *cell, metric)
        if key not in self._cubes:
            self._cubes[key] = _cube(self._groups.get(key), self.seeds)
        return self._cubes[key]

    # ------------------------------------------------------------ failures

    def diverged(self, experiment: str, cell: CellName) -> list[bool]:
        """Return, for each seed, whether the run diverged."""
        status = self.status.get((experiment, *cell), {})
        return [status.get(seed) == "diverged" for seed in self.seeds]

    def untrained(self, experiment: str, cell: CellName) -> list[bool | None]:
        """Return, for each seed, whether its run fails a check for trained; None if unknown."""
        trained_on, _, method, order = cell
        runs = [Run(experiment, trained_on, method, order, seed) for seed in self.seeds]
        for run in runs:
            if run not in self._untrained:
                self._untrained[run] = untrained(recorded(self.folder, run))
        return [self._untrained[run] for run in runs]

    # ------------------------------------------------------------ values

    def start(self, experiment: str, tested_on: str, order: Order, metric: str) -> Floats | None:
        """Return the metric of the untrained random start, (seeds, tasks); None if unknown."""
        found: Floats | None = None
        planned = self.profile.experiments[experiment]
        for trained_on in planned.train_on:
            for method in (*planned.methods, *planned.variants):
                if planned.base_method(method).learns_initialisation:
                    continue
                cube = self.cube(experiment, (trained_on, tested_on, method, order), metric)
                if cube is None or cube.steps[0] != 0:
                    continue
                values = cube.at(0)
                if found is None:
                    found = values
                elif found.shape == values.shape:
                    found = np.where(np.isnan(found), values, found)
        return found

    def floor(self, experiment: str, cell: CellName, metric: str, scale: Scale) -> Floats | None:
        """Return the metric of a method that has learned nothing, (seeds, tasks); None if unknown.

        Args:
            experiment: name of the experiment.
            cell: the cell whose tasks are used.
            metric: name of the metric.
            scale: its scale, which says what the floor is.
        """
        _, tested_on, _, order = cell
        start = self.start(experiment, tested_on, order, metric)
        if start is None or scale.floor != "chance":
            return start
        chance = self.chance(experiment, tested_on)
        below = np.nan_to_num(start.mean(1, keepdims=True), nan=-np.inf) < chance
        return np.where(below, chance, start)

    def chance(self, experiment: str, tested_on: str) -> float:
        """Return the accuracy of guessing a task's class, averaged over a mixture."""
        families = self.profile.experiments[experiment].families
        return float(np.mean([families[name].chance or 0.0 for name in tested_on.split("+")]))

    def pair(
        self, experiment: str, a: CellName, b: CellName, metric: str, scale: Scale, step: int
    ) -> tuple[Floats, Floats]:
        """Return the metric of two cells after a step, each (seeds, tasks).

        Failed values are replaced by the floor. For metrics whose best value is the start's, such
        as distortion, and where the floor is unknown, they are replaced by the worst value of
        either cell. A missing seed is NaN.

        Args:
            experiment: name of the experiment.
            a: first cell.
            b: second cell.
            metric: name of the metric.
            scale: its scale.
            step: a measured step.
        """
        found = [self._at(experiment, cell, metric, step) for cell in (a, b)]
        finite = np.concatenate([values[np.isfinite(values)] for values in found])
        worst = (finite.min() if scale.sign > 0 else finite.max()) if len(finite) else np.nan
        filled = []
        for cell, values in zip((a, b), found, strict=True):
            floor = self.floor(experiment, cell, metric, scale)
            missing = ~np.isfinite(values)
            missing &= ~self._absent(experiment, cell)[:, None]
            if scale.floor == "asr" or floor is None or floor.shape != values.shape:
                filled.append(np.where(missing, worst, values))
            else:
                filled.append(np.where(missing, floor, values))
        return filled[0], filled[1]

    def _absent(self, experiment: str, cell: CellName) -> np.ndarray:
        """Return, for each seed, whether it is missing, (seeds,)."""
        status = self.status.get((experiment, *cell), {})
        return np.array([status.get(seed, "missing") == "missing" for seed in self.seeds])

    def _at(self, experiment: str, cell: CellName, metric: str, step: int) -> Floats:
        """Return a cell's values after a step, (seeds, tasks).

        They are NaN, in the shape of the start's values, if every seed diverged.
        """
        cube = self.cube(experiment, cell, metric)
        if cube is None:  # every seed diverged
            start = self.start(experiment, cell[1], cell[3], metric)
            shape = (len(self.seeds), 1) if start is None else start.shape
            return np.full(shape, np.nan)
        return cube.at(step)

    def arrivals(self, experiment: str, cell: CellName) -> Floats:
        """Return the first written step at which the mean ASR reaches 100 %, (seeds,).

        It is one more than the number of steps if the mean never does, and NaN for a missing seed.
        """
        never = self.profile.experiments[experiment].testing.steps + 1
        cube = self.cube(experiment, cell, "asr")
        found = np.full(len(self.seeds), float(never))
        if cube is not None:
            found = np.minimum(first_full(np.nan_to_num(cube.values).mean(1), cube.steps), never)
        found[self._absent(experiment, cell)] = np.nan
        return found

    def task_arrivals(self, experiment: str, cell: CellName) -> Floats:
        """Return the first steps with ASR 100 %, (seeds, tasks); infinite where there is none."""
        cube = self.cube(experiment, cell, ARRIVAL)
        if cube is None:
            return np.full((len(self.seeds), 1), np.inf)
        return np.nan_to_num(cube.values[:, :, -1], nan=np.inf)

    # ------------------------------------------------------------ floors

    def at_floor(
        self, experiment: str, cell: CellName, metric: str, scale: Scale, asr: Scale, step: int
    ) -> bool | None:
        """Test whether a cell fails to beat its floor, by a one-sided t test over seeds.

        Args:
            experiment: name of the experiment.
            cell: the cell.
            metric: name of the metric.
            scale: its scale.
            asr: scale of the ASR, which decides for metrics with the floor ``asr``.
            step: a measured step.

        Returns:
            True if the cell is not shown to be better; None if the test is not possible.
        """
        if scale.floor == "never":
            arrivals = self.arrivals(experiment, cell)
            never = self.profile.experiments[experiment].testing.steps + 1
            return _not_better(scale.lead(arrivals, np.full_like(arrivals, never)))
        if scale.floor == "asr":
            metric, scale = "asr", asr
        floor = self.floor(experiment, cell, metric, scale)
        values, _ = self.pair(experiment, cell, cell, metric, scale, step)
        if floor is None or floor.shape != values.shape:
            return None
        return _not_better(scale.lead(values.mean(1), floor.mean(1)))


def _not_better(leads: Floats) -> bool | None:
    p = greater_p(leads[np.isfinite(leads)])
    return None if np.isnan(p) else p >= ALPHA


def _cube(rows: pd.DataFrame | None, seeds: Sequence[int]) -> Cube | None:
    if rows is None or rows.empty:
        return None
    tasks, names = pd.factorize(rows["task"], sort=True)
    steps = np.unique(rows["step"])
    values = np.full((len(seeds), len(names), len(steps)), np.nan)
    position = {seed: index for index, seed in enumerate(seeds)}
    of_seed = rows["seed"].map(position)
    known = of_seed.notna().to_numpy()
    index = (
        of_seed[known].astype(int).to_numpy(),
        tasks[known],
        np.searchsorted(steps, rows["step"])[known],
    )
    values[index] = rows["value"].to_numpy()[known]
    return Cube(values, tuple(map(str, names)), tuple(steps.tolist()))
