"""From measurements to effects: how far one cell is ahead of another, on one scale per metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from lft.config import Order, Profile, Run, Settings
from lft.report.measurements import measured_groups, summarised_groups
from lft.report.statistics import ALPHA, UNBOUNDED, Floats, greater_p
from lft.results.folder import Results
from lft.results.trained import recorded, untrained

CellName = tuple[str, str, str, Order]
"""Trained on, tested on, method, order."""
FULL = 0.995
"""A mean ASR that the paper prints as 100 %."""
ARRIVAL = "first_full"
"""First step with ASR 100 %; of a seed, the first at which its mean curve reaches it."""


class Scale(Settings):
    """How a metric is judged: one primary scale, fixed before the runs.

    Points are differences; ratios are tested as logarithms of ratios of means over test tasks,
    which is what the paper's tables and figures show.
    """

    scale: Literal["points", "ratio"]
    better: Literal["higher", "lower"]
    smallest: float  #: smallest effect of interest: a difference, or a ratio above 1
    #: what a fine-tuner that has learned nothing shows: the start's value on the same tasks (at
    #: least 1/ways for ``chance``), a step beyond the last one, or that another metric is at its
    floor: Literal["start", "chance", "never", "asr"]

    @property
    def sign(self) -> float:
        return 1.0 if self.better == "higher" else -1.0

    @property
    def margin(self) -> float:
        """The smallest effect of interest on the scale that is tested."""
        return self.smallest if self.scale == "points" else float(np.log(self.smallest))

    @property
    def bounds(self) -> tuple[float, float]:
        """What an effect can be."""
        return (-1.0, 1.0) if self.scale == "points" else UNBOUNDED

    def lead(self, a: Floats, b: Floats) -> Floats:
        """How far means a are ahead of means b; positive where a is better."""
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = a - b if self.scale == "points" else np.log(a / b)
        return np.asarray(self.sign * difference)

    def centre(self, means: Floats) -> float:
        """Mean over seeds on this scale, so that two of them make the effect: geometric for ratios;
        NaN for a missing seed is left out."""
        known = means[np.isfinite(means)]
        if not len(known):
            return np.nan
        return float(known.mean() if self.scale == "points" else np.exp(np.log(known).mean()))

    def raw(self, lead: float) -> float:
        """A lead as it is shown: the difference a − b, or the ratio a / b."""
        return self.sign * lead if self.scale == "points" else float(np.exp(self.sign * lead))


@dataclass(frozen=True)
class Cube:
    """One metric of one cell: values (seeds, tasks, steps), NaN where there is none."""

    values: Floats
    tasks: tuple[str, ...]
    steps: tuple[int, ...]

    def at(self, step: int) -> Floats:
        """(seeds, tasks) after a step."""
        return self.values[:, :, self.steps.index(step)]


class Measured:
    """Metrics of the cells of a result folder as arrays over (seed, task), with what failed.

    Attributes:
        has_tasks: whether measurements.csv is there. A run that is kept without it has the means
            over test tasks of summary.csv, each as if of one task: enough for verdicts, which rest
            on these means, and for nothing that is about single tasks.
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
        return self.profile.seeds

    def last_step(self, experiment: str, step: int) -> int:
        """The step, or the last one before it that the profile measures."""
        return self.profile.experiments[experiment].testing.written(step)

    def steps(self, experiment: str) -> list[int]:
        """Steps whose metrics are written."""
        testing = self.profile.experiments[experiment].testing
        return list(range(0, testing.steps + 1, testing.every))

    def cube(self, experiment: str, cell: CellName, metric: str) -> Cube | None:
        """What was measured of a cell; None if nothing was."""
        key = (experiment, *cell, metric)
        if key not in self._cubes:
            self._cubes[key] = _cube(self._groups.get(key), self.seeds)
        return self._cubes[key]

    # ------------------------------------------------------------ failures

    def diverged(self, experiment: str, cell: CellName) -> list[bool]:
        """Whether each seed ended in numbers that are not finite."""
        status = self.status.get((experiment, *cell), {})
        return [status.get(seed) == "diverged" for seed in self.seeds]

    def untrained(self, experiment: str, cell: CellName) -> list[bool | None]:
        """Whether each seed failed the test for trained; None where too little was recorded."""
        trained_on, _, method, order = cell
        runs = [Run(experiment, trained_on, method, order, seed) for seed in self.seeds]
        for run in runs:
            if run not in self._untrained:
                self._untrained[run] = untrained(recorded(self.folder, run))
        return [self._untrained[run] for run in runs]

    # ------------------------------------------------------------ values

    def start(self, experiment: str, tested_on: str, order: Order, metric: str) -> Floats | None:
        """(seeds, tasks) of the untrained random start, before the first step."""
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
        """(seeds, tasks) of having learned nothing, on the tasks of a cell; None if unknown."""
        _, tested_on, _, order = cell
        start = self.start(experiment, tested_on, order, metric)
        if start is None or scale.floor != "chance":
            return start
        chance = self.chance(experiment, tested_on)
        below = np.nan_to_num(start.mean(1, keepdims=True), nan=-np.inf) < chance
        return np.where(below, chance, start)

    def chance(self, experiment: str, tested_on: str) -> float:
        """The accuracy of a guess among a task's classes, averaged over a mixture."""
        families = self.profile.experiments[experiment].families
        return float(np.mean([families[name].chance or 0.0 for name in tested_on.split("+")]))

    def pair(
        self, experiment: str, a: CellName, b: CellName, metric: str, scale: Scale, step: int
    ) -> tuple[Floats, Floats]:
        """(seeds, tasks) of two cells after a step, what failed at its floor; a missing seed NaN.

        Where the start counts as best, as for distortion, what failed gets the worst value that
        either cell has.
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
        status = self.status.get((experiment, *cell), {})
        return np.array([status.get(seed, "missing") == "missing" for seed in self.seeds])

    def _at(self, experiment: str, cell: CellName, metric: str, step: int) -> Floats:
        cube = self.cube(experiment, cell, metric)
        if cube is None:  # every seed diverged: as many tasks as the start has
            start = self.start(experiment, cell[1], cell[3], metric)
            shape = (len(self.seeds), 1) if start is None else start.shape
            return np.full(shape, np.nan)
        return cube.at(step)

    def arrivals(self, experiment: str, cell: CellName) -> Floats:
        """(seeds,) first written step at which the mean ASR reaches 100 %, one step more than were
        made where it never does; NaN for a missing seed."""
        never = self.profile.experiments[experiment].testing.steps + 1
        cube = self.cube(experiment, cell, "asr")
        found = np.full(len(self.seeds), float(never))
        if cube is not None:
            full = np.nan_to_num(cube.values).mean(1) >= FULL
            found = np.where(full.any(1), np.array(cube.steps)[full.argmax(1)], never).astype(float)
        found[self._absent(experiment, cell)] = np.nan
        return found

    def task_arrivals(self, experiment: str, cell: CellName) -> Floats:
        """(seeds, tasks) first steps with ASR 100 %; infinite where there was none."""
        cube = self.cube(experiment, cell, ARRIVAL)
        if cube is None:
            return np.full((len(self.seeds), 1), np.inf)
        return np.nan_to_num(cube.values[:, :, -1], nan=np.inf)

    # ------------------------------------------------------------ floors

    def at_floor(
        self, experiment: str, cell: CellName, metric: str, scale: Scale, asr: Scale, step: int
    ) -> bool | None:
        """Whether a cell is not better than having learned nothing, by a one-sided t test over
        seeds; None if that cannot be told."""
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
