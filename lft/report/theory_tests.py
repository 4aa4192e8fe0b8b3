"""Tests of the paper's theoretical statements on the rows of theory.csv.

Each looks at every experiment measured and reports the one that speaks most against the statement.
Intervals are over seeds, that is over meta-trainings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lft.report.statistics import Finding, Interval, against, mean_interval

EXACT = 1e-9
"""Largest relative difference between Statement 1's recursion and autograd, in float64."""


def statement1(theory: pd.DataFrame) -> Finding | None:
    """The largest relative difference between the recursion and autograd is below EXACT."""
    errors = theory.loc[theory["quantity"] == "statement1_error", "value"]
    if errors.empty:
        return None
    worst = float(errors.max())
    note = f"largest of {len(errors)} cases"
    return Finding(f"largest relative difference {worst:.1e}", holds=worst <= EXACT, note=note)


def bound(theory: pd.DataFrame) -> Finding | None:
    """The mean gap is below the mean bound at every point measured."""
    points = gap_points(theory)
    if points.empty:
        return None
    share, ratio = share_below_bound(points), bound_over_gap(points)
    if ratio.empty:
        return None
    ours = f"holds at {share:.0%} of points; bound / gap {ratio.min():.2g} to {ratio.max():.2g}"
    return Finding(ours, holds=share == 1, note=f"{len(points)} points")


def decay_support(theory: pd.DataFrame) -> Finding | None:
    """With |D_val| fixed, the gap falls with |D_tr| as the bound does; see :func:`_decay`."""
    return _decay(theory, "support", "query")


def decay_query(theory: pd.DataFrame) -> Finding | None:
    """With |D_tr| fixed, the gap falls with |D_val| as the bound does; see :func:`_decay`."""
    return _decay(theory, "query", "support")


def sigma(theory: pd.DataFrame) -> Finding | None:
    """Gap and σ rise together over tasks.

    Both are compared with their mean (of logarithms) at the same sizes, K and stage, which change
    both; what is left is Spearman-correlated within each experiment and seed.
    """
    keys = ["experiment", "seed", "stage", "steps", "support", "query"]
    rows = theory[theory["quantity"].isin(["gap", "sigma"])]
    if rows.empty:
        return None
    table = rows.pivot_table(
        index=[*keys, "task"], columns="quantity", values="value", observed=True
    )
    table = table[(table > 0).all(axis=1)]  # a collapsed φ has no gap, and no logarithm of it
    logs = pd.DataFrame(np.log(table.to_numpy()), index=table.index, columns=table.columns)
    rest = logs - logs.groupby(keys, observed=True).transform("mean")
    correlations = {
        where: float(stats.spearmanr(group["sigma"], group["gap"]).statistic)
        for where, group in rest.groupby(["experiment", "seed"], observed=True)
    }
    return _over_seeds(correlations, "rank correlation", 0.1)


def vanishing(theory: pd.DataFrame) -> Finding | None:
    """From the smallest to the largest K, LFT's meta-gradient norm falls less than MAML's.

    The quantity is the difference of log₁₀ of the two norms' ratios.
    """
    norms = theory[theory["quantity"] == "meta_gradient_norm"]
    keys = ["experiment", "seed", "method"]
    table = norms.pivot_table(index=keys, columns="steps", values="value", observed=True)
    if table.empty:
        return None
    first, last = table.columns.min(), table.columns.max()
    change = (table[last] / table[first]).unstack("method")
    if not {"lft", "maml"} <= set(change.columns):
        return None
    lead = pd.Series(np.log10(change["lft"] / change["maml"]))
    what = f"log10 of LFT's over MAML's change of the norm from K = {first} to {last}"
    return _over_seeds(lead.to_dict(), what, float(np.log10(1.1)))


TESTS: dict[str, Callable[[pd.DataFrame], Finding | None]] = {
    "statement1": statement1,
    "bound": bound,
    "decay_support": decay_support,
    "decay_query": decay_query,
    "sigma": sigma,
    "vanishing": vanishing,
}


def gap_points(theory: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Means over tasks and seeds of gap, its parts, bound, σ and G at every measured point.

    The fitting part is the root of its mean square, NaN where the estimate of that is negative.

    Args:
        keys: further columns to tell points apart by, such as ``seed``.
    """
    quantities = ["gap", "variance_part", "fitting_square", "bound", "sigma", "jacobian"]
    rows = theory[theory["quantity"].isin(quantities)]
    if rows.empty:
        return pd.DataFrame()
    index = ["experiment", "stage", "steps", "support", "query", *keys]
    table = rows.pivot_table(index=index, columns="quantity", values="value", observed=True)
    table = table.reindex(columns=quantities)  # one that was never finite has no rows
    square = table.pop("fitting_square")
    table["fitting_part"] = square.where(square >= 0) ** 0.5
    return table.reset_index().astype({"support": int, "query": int})


def share_below_bound(points: pd.DataFrame) -> float:
    """Share of points whose mean gap is at most the mean bound."""
    return float((points["gap"] <= points["bound"]).mean())


def bound_over_gap(points: pd.DataFrame) -> pd.Series:
    """By what factor the bound is above the gap; points without a gap are left out."""
    there = points[points["gap"] > 0]
    return there["bound"] / there["gap"]


def gradient_missing(theory: pd.DataFrame) -> dict[tuple[str, str], Interval]:
    """Share of the expected gradient that is missing on D_tr, by experiment and stage; 0 under A1.

    With the means m_i of ⟨∇f(θ⁽ᵏ⁾; D_new), ∇f(θ⁽ᵏ⁾; D_val)⟩ and t_i of the same with D_tr over all
    points of task i, it is the mean of (m_i − t_i) / m over the tasks of all seeds, m being the
    mean of m_i. The interval is over tasks: A1 is about data, whatever φ is.
    """
    rows = theory[theory["quantity"].isin(["gradient_square", "gradient_kept"])]
    if rows.empty:
        return {}
    keys = ["experiment", "stage", "seed", "task"]
    means = rows.pivot_table(index=keys, columns="quantity", values="value", observed=True)
    found: dict[tuple[str, str], Interval] = {}
    for (experiment, stage), of_tasks in means.groupby(["experiment", "stage"], observed=True):
        square = of_tasks["gradient_square"].mean()
        missing = (of_tasks["gradient_square"] - of_tasks["gradient_kept"]) / square
        found[str(experiment), str(stage)] = mean_interval(missing if square > 0 else [], "tasks")
    return found


def sweep(points: pd.DataFrame, varied: str, fixed: str) -> pd.DataFrame:
    """Points where ``varied`` changes, ``fixed`` has its usual value and K its largest one."""
    of_experiment = points.groupby(["experiment", "stage"], observed=True)
    longest = of_experiment["steps"].transform("max")
    usual = of_experiment[fixed].transform(lambda sizes: sizes.mode().iloc[0])
    chosen: pd.DataFrame = points[(points[fixed] == usual) & (points["steps"] == longest)]
    return chosen.sort_values(varied)


def decay_slopes(theory: pd.DataFrame, quantity: str, varied: str, fixed: str) -> dict[Any, float]:
    """Slopes of log ``quantity`` against log(1/√|D_tr| + 1/√|D_val|), where the bound's is 1.

    One size varies; the other one's share does not shrink, so that the logarithm of the gap
    against log |D| alone would not have the slope −1/2 even if the theorem were tight. Largest K.

    Args:
        quantity: ``gap`` or ``variance_part``.
        varied: ``support`` or ``query``; ``fixed`` the other one.

    Returns:
        By experiment, stage and seed.
    """
    points = gap_points(theory, "seed")
    if points.empty:
        return {}
    chosen = sweep(points[points[quantity] > 0], varied, fixed)
    rate = np.log(chosen["support"] ** -0.5 + chosen["query"] ** -0.5)
    chosen = chosen.assign(rate=rate, log=np.log(chosen[quantity]))
    return {
        where: float(stats.linregress(group["rate"], group["log"]).slope)
        for where, group in chosen.groupby(["experiment", "stage", "seed"], observed=True)
        if group[varied].nunique() > 1
    }


def _decay(theory: pd.DataFrame, varied: str, fixed: str) -> Finding | None:
    """The slope of :func:`decay_slopes` is 1 for the gap at trained φ."""
    slopes = decay_slopes(theory, "gap", varied, fixed)
    trained = {(where, seed): slope for (where, at, seed), slope in slopes.items() if at == "best"}
    return _over_seeds(trained, "slope", 0.1, expected=1.0)


def _over_seeds(
    values: Mapping[Any, float], what: str, smallest: float, expected: float | None = None
) -> Finding | None:
    """Whether a quantity is positive, or above ``expected`` if given, in every experiment.

    Args:
        values: by experiment and seed.
        smallest: effect of interest.
    """
    known = pd.Series(values, dtype=float).dropna()
    if known.empty:
        return None
    readings = {
        str(name): (group - (expected or 0.0)).to_numpy() for name, group in known.groupby(level=0)
    }
    numbers = ", ".join(
        f"{name} {interval.mean + (expected or 0.0):.2f}"
        + ("" if np.isnan(interval.low) else f" ± {interval.half_width:.2f}")
        for name, interval in ((name, mean_interval(v)) for name, v in readings.items())
    )
    unit = what if expected is None else f"{what} − {expected:g}"
    edge = 0.0 if expected is None else smallest
    weakest = against({name: values + edge for name, values in readings.items()})
    return Finding(
        f"{what}: {numbers}", tuple(readings[weakest]), smallest, expected is not None, unit,
        len(readings), note=weakest,
    )  # fmt: skip
