"""Numbers from the rows of theory.csv: pure functions of the table, a value for every seed.

Nothing is dropped on the way without being counted; see :class:`Rate` and :class:`Correlation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from lft.report.statistics import Interval, mean_interval

FITTED, FROZEN = "lft", "lft frozen"
"""Column ``method``: trajectories fitted on D_tr; one frozen, with D_new in place of D_tr."""
POINT = ["stage", "method", "steps", "support", "query"]

Sweep = Literal["both", "support", "query"]
SWEEPS: tuple[Sweep, ...] = ("both", "support", "query")
"""Which of the two sizes varies."""


def tasks(theory: pd.DataFrame, *quantities: str) -> pd.DataFrame:
    """One row for every task and point that has the first quantity, with all of them as columns;
    what was not measured is NaN. Sizes are integers, names are texts."""
    index = ["experiment", "seed", *POINT, "task"]
    rows = _plain(theory[theory["quantity"].isin(quantities)])
    table = _wide(rows, index, "quantity").reindex(columns=list(quantities)).reset_index()
    measured = rows.loc[rows["quantity"] == quantities[0], index]
    return measured.merge(table, on=index).astype({"support": int, "query": int})


def finite(table: pd.DataFrame, *columns: str) -> pd.Series[bool]:
    """Rows in which all of these columns are numbers."""
    numbers = np.isfinite(table[list(columns)].to_numpy(dtype=float)).all(axis=1)
    return pd.Series(numbers, index=table.index)


def gap_points(theory: pd.DataFrame) -> pd.DataFrame:
    """Means over tasks and seeds of gap, its parts, bound, σ and G at every measured point.

    What is not finite does not enter. The fitting part is the root of its mean square, NaN where
    the estimate of that is negative.
    """
    quantities = ["gap", "variance_part", "fitting_square", "bound", "sigma", "jacobian"]
    rows = theory[theory["quantity"].isin(quantities) & finite(theory, "value")]
    if rows.empty:
        return pd.DataFrame()
    index = ["experiment", *POINT]
    table = rows.pivot_table(
        index=index, columns="quantity", values="value", observed=True, sort=False
    )
    table = table.reindex(columns=quantities)  # one that was never finite has no rows
    square = table.pop("fitting_square")
    table["fitting_part"] = square.where(square >= 0) ** 0.5
    return _plain(table.reset_index()).astype({"support": int, "query": int})


def bound_over(points: pd.DataFrame, quantity: str) -> pd.Series[float]:
    """By what factor the bound is above the gap; what has no gap is left out."""
    there = points[points[quantity] > 0]
    return there["bound"] / there[quantity]


class BoundRow(NamedTuple):
    """Theorem 1 in one experiment at one stage of φ; medians are over tasks and points.

    Attributes:
        points: tasks and points at which gap and bound are finite.
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
    """Where the bound holds, task by task, and by what factor."""
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
    """Share of the expected gradient that is missing on D_tr, by experiment and stage; 0 under A1.

    With the means m_i of ⟨∇f(θ⁽ᵏ⁾; D_new), ∇f(θ⁽ᵏ⁾; D_val)⟩ and t_i of the same with D_tr over all
    points of task i, it is the mean of (m_i − t_i) / m over the tasks of all seeds, m being the
    mean of m_i. The interval is over tasks: A1 is about data, whatever φ is.
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


# ---------------------------------------------------------------- rates


class Rate(NamedTuple):
    """How a gap falls with |D|, over the tasks of one seed.

    Attributes:
        slope: of log of the mean over tasks of gap / (G σ) against log |D|.
        of_bound: of log(1/√|D_tr| + 1/√|D_val|) at the same sizes: −1/2 if both vary.
        span: log of the largest over the smallest |D|.
        tasks: how many entered.
        left_out: how many did not, by reason.
    """

    slope: float
    of_bound: float
    span: float
    tasks: int
    left_out: dict[str, int]

    @property
    def excess(self) -> float:
        """0 if the gap falls as the bound does, more if it falls more slowly."""
        return self.slope - self.of_bound


def rates(
    theory: pd.DataFrame, quantity: str, series: str, sweep: Sweep
) -> dict[tuple[str, str, int], Rate]:
    """Rates by experiment, stage and seed; at the largest K.

    A task whose bound is 0, or one of whose numbers is not finite, is left out at all sizes, so
    that the same tasks are compared. G and σ are those of each task, and gap / (G σ) is averaged
    before the logarithm: a task that happens to have no gap at one size counts there as 0.

    Args:
        quantity: ``gap`` or ``variance_part``.
        series: :data:`FITTED` or :data:`FROZEN`.
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
    """Rows at the largest K where one size varies, or both together.

    The size that is held is the one at which the other varies most; of several, the largest.
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


def _rate(points: pd.DataFrame, quantity: str, varied: str) -> Rate:
    decay = points["support"] ** -0.5 + points["query"] ** -0.5
    points = points.assign(decay=decay, ratio=points[quantity] / points["bound"] * decay)
    known = finite(points, quantity, "bound")
    bad = {
        "not finite": set(points.loc[~known, "task"]),
        "bound is 0": set(points.loc[known & (points["bound"] == 0), "task"]),
    }
    kept = points[~points["task"].isin(set().union(*bad.values()))]
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
    """The exponent of every sweep of both series, by experiment and stage."""
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


# ---------------------------------------------------------------- growth


class Growth(NamedTuple):
    """How one column grows with another, a number for every seed; ``n`` rows, or tasks, entered."""

    by_seed: dict[int, float]
    n: int
    left_out: dict[str, int]


def correlation(table: pd.DataFrame, a: str, b: str, within: list[str]) -> Growth:
    """Spearman's rank correlation of two columns in each group, its mean over those of a seed.

    Ranks need no logarithm, so that a gap of 0 stays.
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
    """Exponent of a in b: slope of log b against log a, where b is that of each task over its mean,
    averaged over the tasks of a seed, so that a task without a gap at one a counts as 0."""
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
    """Norms of each task's meta-gradient at every K.

    Returns:
        Columns experiment, stage, method, seed, task, steps, value, and ``relative``: over the norm
        at the smallest K, infinite or NaN where one of them is 0 or not finite.
    """
    keys = ["experiment", "stage", "method", "seed", "task"]
    rows = _plain(theory[theory["quantity"] == "meta_gradient_norm"])
    rows = rows[[*keys, "steps", "value"]].sort_values("steps", kind="stable")
    first = rows.groupby(keys)["value"].transform("first")
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = rows["value"].to_numpy() / first.to_numpy()
    return pd.DataFrame(rows.assign(relative=relative).sort_index())


def decades(theory: pd.DataFrame) -> pd.DataFrame:
    """How far each task's meta-gradient norm changes from the smallest to the largest K.

    Returns:
        Columns experiment, stage, method, seed, task; ``decades``, log₁₀ of the ratio of the norms,
        infinite or NaN where one is 0 or not finite; and ``of_k``, that of the two K.
    """
    rows = norms(theory)
    first, last = rows["steps"].min(), rows["steps"].max()
    rows = rows[(rows["steps"] == last) & (last > first)]
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.log10(rows["relative"].to_numpy())
    return pd.DataFrame(rows.assign(decades=change, of_k=np.log10(rows["steps"] / first)))


# ---------------------------------------------------------------- helpers


def groups(table: pd.DataFrame, *keys: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Rows that agree in these columns, with what they agree in, in the order of the table."""
    yield from table.groupby(list(keys), sort=False)


def counted(counts: Mapping[str, int]) -> dict[str, int]:
    """Those that are not 0."""
    return {reason: count for reason, count in counts.items() if count}


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by reason."""
    sums: dict[str, int] = {}
    for part in counts:
        for reason, count in part.items():
            sums[reason] = sums.get(reason, 0) + count
    return sums


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """Categories as texts, so that a group that is not there is none."""
    return rows.astype({name: str for name in rows if rows[name].dtype == "category"})


def _wide(rows: pd.DataFrame, index: list[str], columns: str) -> pd.DataFrame:
    """Values by ``columns``, as they are: none of them is averaged or dropped."""
    table = rows.set_index([*index, columns])["value"].unstack(columns)
    return pd.DataFrame(table)
