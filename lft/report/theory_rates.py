"""How fast Theorem 1's gap falls with the sizes of the data sets, for every seed."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from lft.report.statistics import Interval, mean_interval
from lft.report.theory_numbers import FITTED, FROZEN, counted, finite, groups, tasks

Sweep = Literal["both", "support", "query"]
SWEEPS: tuple[Sweep, ...] = ("both", "support", "query")
"""Which of the two sizes varies."""


class Rate(NamedTuple):
    """How a gap falls with |D|, over the tasks of one seed.

    Attributes:
        slope: slope of log of the mean over tasks of gap / (G σ) against log |D|.
        of_bound: slope of log(1/√|D_tr| + 1/√|D_val|) at the same sizes; −1/2 if both vary.
        span: log of the ratio of the largest to the smallest |D|.
        tasks: number of tasks used.
        left_out: number of tasks left out, by reason.
    """

    slope: float
    of_bound: float
    span: float
    tasks: int
    left_out: dict[str, int]

    @property
    def excess(self) -> float:
        """0 if the gap falls as fast as the bound, positive if it falls more slowly."""
        return self.slope - self.of_bound


def rates(
    theory: pd.DataFrame, quantity: str, series: str, sweep: Sweep
) -> dict[tuple[str, str, int], Rate]:
    """Fit rates by experiment, stage and seed, at the largest K.

    Each task has its own G and σ, see :func:`scaled`. The mean of gap / (G σ) is taken before the
    logarithm, so that a task without a gap at one size counts as 0.

    Args:
        theory: rows of THEORY_COLUMNS.
        quantity: ``gap`` or ``variance_part``.
        series: :data:`FITTED` or :data:`FROZEN`.
        sweep: which size varies.
    """
    table = tasks(theory, quantity, "bound")
    table = table[table["method"] == series]
    found = {}
    for where, group in groups(table, "experiment", "stage", "seed"):
        chosen = swept(group, sweep)
        varied = "query" if sweep == "query" else "support"
        if chosen[varied].nunique() > 1:
            found[where] = _rate(chosen, quantity, varied)
    return found


def swept(points: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """Return the rows at the largest K where one size varies, or both together.

    The other size is fixed at the value with the most sizes of the varying one; among ties, the
    largest.
    """
    longest: pd.DataFrame = points[points["steps"] == points["steps"].max()]
    if sweep == "both":
        same: pd.DataFrame = longest[longest["support"] == longest["query"]]
        return same
    held = "query" if sweep == "support" else "support"
    varieties = longest.groupby(held)[sweep].nunique()
    most = varieties.index[varieties == varieties.max()]
    chosen: pd.DataFrame = longest[longest[held] == max(most, default=0)]
    return chosen


def scaled(points: pd.DataFrame, quantity: str) -> tuple[pd.DataFrame, dict[str, set[Any]]]:
    """Divide each task's gap by its own G σ, which is its bound over 1/√|D_tr| + 1/√|D_val|.

    A task is left out at all sizes if its bound is 0 or a value is not finite, so that all sizes
    have the same tasks.

    Args:
        points: rows of :func:`tasks`, from :func:`swept`.
        quantity: ``gap`` or ``variance_part``.

    Returns:
        The rows of the other tasks with the columns ``ratio``, gap / (G σ), and ``decay``, the
        bound over G σ; and the (seed, task) left out, by reason.
    """
    decay = points["support"] ** -0.5 + points["query"] ** -0.5
    points = points.assign(decay=decay, ratio=points[quantity] / points["bound"] * decay)
    known, names = finite(points, quantity, "bound"), points.set_index(["seed", "task"]).index
    bad: dict[str, set[Any]] = {
        "not finite": set(names[~known]),
        "bound is 0": set(names[known & (points["bound"] == 0)]),
    }
    lost = set().union(*bad.values())
    return points[[name not in lost for name in names]], bad


def _rate(points: pd.DataFrame, quantity: str, varied: str) -> Rate:
    kept, bad = scaled(points, quantity)
    means = kept.groupby(varied)[["ratio", "decay"]].mean()
    slope = of_bound = np.nan
    if len(means) > 1 and (means["ratio"] > 0).all():
        sizes = np.log(means.index.to_numpy(dtype=float))
        slope, of_bound = (
            float(stats.linregress(sizes, np.log(means[name])).slope) for name in means
        )
    span = float(np.log(points[varied].max() / points[varied].min()))
    left_out = counted({reason: len(names) for reason, names in bad.items()})
    return Rate(slope, of_bound, span, kept["task"].nunique(), left_out)


class RateRow(NamedTuple):
    """One exponent at one stage of φ, with its interval over seeds."""

    experiment: str
    stage: str
    series: str
    sweep: Sweep
    slope: Interval
    of_bound: float


def rate_table(theory: pd.DataFrame) -> list[RateRow]:
    """Return the exponent of every sweep of both series, by experiment and stage."""
    rows = []
    for series, quantity in ((FITTED, "gap"), (FROZEN, "variance_part")):
        for sweep in SWEEPS:
            by_stage: dict[tuple[str, str], list[Rate]] = {}
            for (experiment, stage, _), rate in rates(theory, quantity, series, sweep).items():
                if np.isfinite(rate.slope):
                    by_stage.setdefault((experiment, stage), []).append(rate)
            for where, found in by_stage.items():
                slope = mean_interval([rate.slope for rate in found])
                rows.append(RateRow(*where, series, sweep, slope, found[0].of_bound))
    return rows
