"""Numbers from the rows of theory.csv: pure functions of the table, with a value for every seed.

Every dropped value is counted; see :class:`Growth` and
:class:`lft.report.theory_rates.Rate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from lft.report.statistics import Interval, mean_interval

FITTED, FROZEN = "lft", "lft frozen"
"""Values of the column ``method``: trajectories fitted on D_tr; a frozen trajectory, with D_new
instead of D_tr."""
POINT = ["stage", "method", "steps", "support", "query"]
"""Columns that identify a point of the measurement."""


def tasks(theory: pd.DataFrame, *quantities: str) -> pd.DataFrame:
    """Pivot theory.csv to one row for every task and point that has the first quantity.

    Args:
        theory: rows of THEORY_COLUMNS.
        quantities: these become columns; NaN where they were not measured.

    Returns:
        Columns experiment, seed, :data:`POINT`, task and the quantities. Sizes are integers, names
        are strings.
    """
    index = ["experiment", "seed", *POINT, "task"]
    rows = _plain(theory[theory["quantity"].isin(quantities)])
    table = _wide(rows, index, "quantity").reindex(columns=list(quantities)).reset_index()
    measured = rows.loc[rows["quantity"] == quantities[0], index]
    return measured.merge(table, on=index).astype({"support": int, "query": int})


def finite(table: pd.DataFrame, *columns: str) -> pd.Series[bool]:
    """Return, for each row, whether all of these columns are finite."""
    numbers = np.isfinite(table[list(columns)].to_numpy(dtype=float)).all(axis=1)
    return pd.Series(numbers, index=table.index)


def gap_points(theory: pd.DataFrame) -> pd.DataFrame:
    """Average gap, its parts, bound, σ and G over tasks and seeds at every measured point.

    Values that are not finite are left out. The fitting part is the root of its mean square, or NaN
    if the estimate of the square is negative.
    """
    quantities = ["gap", "variance_part", "fitting_square", "bound", "sigma", "jacobian"]
    rows = theory[theory["quantity"].isin(quantities) & finite(theory, "value")]
    if rows.empty:
        return pd.DataFrame()
    index = ["experiment", *POINT]
    table = rows.pivot_table(
        index=index, columns="quantity", values="value", observed=True, sort=False
    )
    table = table.reindex(columns=quantities)  # a quantity that was never finite has no rows
    square = table.pop("fitting_square")
    table["fitting_part"] = square.where(square >= 0) ** 0.5
    return _plain(table.reset_index()).astype({"support": int, "query": int})


def bound_over(points: pd.DataFrame, quantity: str) -> pd.Series[float]:
    """Return the ratio of the bound to the gap, for rows with a gap above 0."""
    there = points[points[quantity] > 0]
    return there["bound"] / there[quantity]


class BoundRow(NamedTuple):
    """Theorem 1 in one experiment at one stage of φ; medians are over tasks and points.

    Attributes:
        points: number of tasks and points with finite gap and bound.
        violations: how many of them have a gap above the bound.
        factors: smallest and largest bound / gap.
        over_variance: median of gap / variance part.
        sigma: median of σ.
        jacobian: median of G.
    """

    experiment: str
    stage: str
    points: int
    violations: int
    factors: tuple[float, float]
    over_variance: float
    sigma: float
    jacobian: float


def bound_table(theory: pd.DataFrame) -> list[BoundRow]:
    """Count the tasks that violate the bound and measure its looseness, by experiment and stage."""
    table = tasks(theory, "gap", "variance_part", "bound", "sigma", "jacobian")
    table = table[finite(table, "gap", "bound")]
    rows = []
    for (experiment, stage), group in groups(table, "experiment", "stage"):
        factor, there = bound_over(group, "gap"), group[group["variance_part"] > 0]
        rows.append(
            BoundRow(
                experiment,
                stage,
                len(group),
                int((group["gap"] > group["bound"]).sum()),
                (float(factor.min()), float(factor.max())),
                float((there["gap"] / there["variance_part"]).median()),
                float(group["sigma"].median()),
                float(group["jacobian"].median()),
            )
        )
    return rows


def gradient_missing(theory: pd.DataFrame) -> dict[tuple[str, str], Interval]:
    """Estimate the share of the expected gradient that is missing on D_tr; it is 0 under A1.

    Let m_i be the mean of ⟨∇f(θ⁽ᵏ⁾; D_new), ∇f(θ⁽ᵏ⁾; D_val)⟩ over all points of task i, and t_i the
    same with D_tr. The share is the mean of (m_i − t_i) / m over the tasks of all seeds, where m is
    the mean of m_i.

    Returns:
        Experiment and stage -> share with its interval. The interval is over tasks, because A1 is
        about data for any φ.
    """
    table = tasks(theory, "gradient_square", "gradient_kept")
    table = table[finite(table, "gradient_square", "gradient_kept")]
    means = table.groupby(["experiment", "stage", "seed", "task"], sort=False)[
        ["gradient_square", "gradient_kept"]
    ].mean()
    found: dict[tuple[str, str], Interval] = {}
    for (experiment, stage), of_tasks in groups(means, "experiment", "stage"):
        square = of_tasks["gradient_square"].mean()
        missing = (of_tasks["gradient_square"] - of_tasks["gradient_kept"]) / square
        found[experiment, stage] = mean_interval(missing if square > 0 else [], "tasks")
    return found


# ---------------------------------------------------------------- growth


class Growth(NamedTuple):
    """How one column grows with another.

    Attributes:
        by_seed: the estimate of each seed.
        n: number of rows (:func:`correlation`) or tasks (:func:`growth`) used.
        left_out: number left out, by reason.
    """

    by_seed: dict[int, float]
    n: int
    left_out: dict[str, int]


def correlation(table: pd.DataFrame, a: str, b: str, within: list[str]) -> Growth:
    """Average Spearman's rank correlation of two columns over groups, for each seed.

    Ranks need no logarithm, so a gap of 0 stays.

    Args:
        table: a row per task and point, with a column ``seed``.
        a: column.
        b: column.
        within: columns that identify a group.
    """
    known = finite(table, a, b)
    by_seed: dict[int, list[float]] = {}
    n = equal = 0
    for _, group in groups(table[known], "seed", *within):
        if min(group[a].nunique(), group[b].nunique()) < 2:
            equal += len(group)
            continue
        n += len(group)
        found = float(stats.spearmanr(group[a], group[b]).statistic)
        by_seed.setdefault(int(group["seed"].iloc[0]), []).append(found)
    means = {seed: float(np.mean(values)) for seed, values in by_seed.items()}
    return Growth(means, n, counted({"not finite": int((~known).sum()), "all equal": equal}))


def growth(table: pd.DataFrame, a: str, b: str) -> Growth:
    """Fit the exponent of ``a`` in ``b``, for each seed.

    Each task's b is divided by the task's mean and then averaged over tasks, so that a task without
    a gap at one a counts as 0. The exponent is the slope of the logarithm of this average against
    log a.

    Args:
        table: a row per task and value of ``a``, with columns ``seed`` and ``task``.
        a: column.
        b: column.
    """
    known = finite(table, b)
    bad = {"not finite": 0, "no gap": 0}
    by_seed, n = {}, 0
    for (seed,), group in groups(table.assign(known=known), "seed"):
        of_task = group.groupby("task")
        whole, mean = of_task["known"].transform("all"), of_task[b].transform("mean")
        kept = group[whole & (mean > 0)]
        bad["not finite"] += group.loc[~whole, "task"].nunique()
        bad["no gap"] += group.loc[whole & ~(mean > 0), "task"].nunique()
        means = (kept[b] / mean[kept.index]).groupby(kept[a]).mean()
        if len(means) > 1 and (means > 0).all():
            at = np.log(means.index.to_numpy(dtype=float))
            by_seed[int(seed)] = float(stats.linregress(at, np.log(means.to_numpy())).slope)
            n += kept["task"].nunique()
    return Growth(by_seed, n, counted(bad))


def norms(theory: pd.DataFrame) -> pd.DataFrame:
    """Return the norms of each task's meta-gradient at every K.

    Returns:
        Columns experiment, stage, method, seed, task, steps, value and ``relative``, the ratio to
        the norm at the smallest K. The ratio is infinite or NaN where a norm is 0 or not finite.
    """
    keys = ["experiment", "stage", "method", "seed", "task"]
    rows = _plain(theory[theory["quantity"] == "meta_gradient_norm"])
    rows = rows[[*keys, "steps", "value"]].sort_values("steps", kind="stable")
    first = rows.groupby(keys)["value"].transform("first")
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = rows["value"].to_numpy() / first.to_numpy()
    return pd.DataFrame(rows.assign(relative=relative).sort_index())


def decades(theory: pd.DataFrame) -> pd.DataFrame:
    """Measure how much each task's meta-gradient norm changes from the smallest to the largest K.

    Returns:
        Columns experiment, stage, method, seed, task; ``decades``, log₁₀ of the ratio of the norms,
        infinite or NaN where a norm is 0 or not finite; ``of_k``, log₁₀ of the ratio of the two K.
    """
    rows = norms(theory)
    first, last = rows["steps"].min(), rows["steps"].max()
    rows = rows[(rows["steps"] == last) & (last > first)]
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.log10(rows["relative"].to_numpy())
    return pd.DataFrame(rows.assign(decades=change, of_k=np.log10(rows["steps"] / first)))


# ---------------------------------------------------------------- helpers


def groups(table: pd.DataFrame, *keys: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Yield the groups of rows that agree in these columns, in the order of the table."""
    yield from table.groupby(list(keys), sort=False)


def counted(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts that are not 0."""
    return {reason: count for reason, count in counts.items() if count}


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up counts by reason."""
    sums: dict[str, int] = {}
    for part in counts:
        for reason, count in part.items():
            sums[reason] = sums.get(reason, 0) + count
    return sums


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """Convert categories to strings, so that groupby yields no empty groups."""
    return rows.astype({name: str for name in rows if rows[name].dtype == "category"})


def _wide(rows: pd.DataFrame, index: list[str], columns: str) -> pd.DataFrame:
    """Pivot values to columns without averaging or dropping any."""
    table = rows.set_index([*index, columns])["value"].unstack(columns)
    return pd.DataFrame(table)
