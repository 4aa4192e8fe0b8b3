"""Tests of the paper's theoretical statements on the rows of theory.csv."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from lft.report.statistics import Finding, Interval, loglog_slope, paired

Result = tuple[str, Finding] | None
"""Our number as text and the finding; None where nothing was measured."""

EXACT = 1e-9
"""Largest relative difference between Statement 1's recursion and autograd, in float64."""


def statement1(theory: pd.DataFrame) -> Result:
    """The largest relative difference between the recursion and autograd is below EXACT."""
    errors = theory.loc[theory["quantity"] == "statement1_error", "value"]
    if errors.empty:
        return None
    worst = float(errors.max())
    interval = Interval(worst, np.nan, np.nan, len(errors), f"largest of {len(errors)} cases")
    holds = worst <= EXACT
    return f"largest relative difference {worst:.1e}", Finding(
        interval, np.nan, holds, holds, certain=True
    )


def bound(theory: pd.DataFrame) -> Result:
    """The mean gap is below the bound at every point measured."""
    points = gap_points(theory)
    if points.empty:
        return None
    ratio = points["bound"] / points["gap"]
    share = float((ratio >= 1).mean())
    kind = f"smallest bound / gap over {len(points)} points"
    interval = Interval(float(ratio.min()), np.nan, np.nan, len(points), kind)
    ours = f"holds at {share:.0%} of points; bound / gap {ratio.min():.2g} to {ratio.max():.2g}"
    return ours, Finding(interval, np.nan, share == 1, share == 1, certain=True)


def decay_support(theory: pd.DataFrame) -> Result:
    """The gap falls as |D_tr| to the power −1/2 when |D_tr| varies."""
    return _decay(theory, "support", "query")


def decay_query(theory: pd.DataFrame) -> Result:
    """The gap falls as |D_val| to the power −1/2 when |D_val| varies."""
    return _decay(theory, "query", "support")


def sigma(theory: pd.DataFrame) -> Result:
    """Over the measured points, gap and σ rise together (Spearman's rank correlation)."""
    points = gap_points(theory)
    if len(points) < 3:
        return None
    test = stats.spearmanr(points["sigma"], points["gap"], alternative="greater")
    kind = f"Spearman correlation over {len(points)} points"
    interval = Interval(float(test.statistic), np.nan, np.nan, len(points), kind)
    holds = bool(test.statistic > 0)
    return f"rank correlation {test.statistic:.2f}", Finding(
        interval, float(test.pvalue), holds, holds
    )


def vanishing(theory: pd.DataFrame) -> Result:
    """From the smallest to the largest K, LFT's meta-gradient norm falls less than MAML's."""
    norms = theory[theory["quantity"] == "meta_gradient_norm"]
    if norms.empty:
        return None
    keys = ["method", "experiment", "seed", "task"]
    table = norms.pivot_table(index=keys, columns="steps", values="value", observed=True)
    ratio = table[table.columns.max()] / table[table.columns.min()]
    log_change = pd.Series(np.log10(ratio.to_numpy()), index=ratio.index)
    if not {"lft", "maml"} <= set(log_change.index.get_level_values("method")):
        return None
    both: pd.DataFrame = pd.concat(
        [log_change["lft"], log_change["maml"]], axis=1, join="inner"
    ).dropna()
    comparison = paired(both.iloc[:, 0], both.iloc[:, 1])
    first, last = table.columns.min(), table.columns.max()
    ours = (
        f"norm at K = {last} over K = {first}: LFT 10^{both.iloc[:, 0].mean():.1f}, "
        f"MAML 10^{both.iloc[:, 1].mean():.1f}"
    )
    by_seed = (both.iloc[:, 0] - both.iloc[:, 1]).groupby(level="seed", observed=True).mean()
    holds = comparison.difference.mean > 0
    return ours, Finding(comparison.difference, comparison.p, holds, bool((by_seed > 0).all()))


TESTS: dict[str, Callable[[pd.DataFrame], Result]] = {
    "statement1": statement1,
    "bound": bound,
    "decay_support": decay_support,
    "decay_query": decay_query,
    "sigma": sigma,
    "vanishing": vanishing,
}


def gap_points(theory: pd.DataFrame) -> pd.DataFrame:
    """Means over tasks and seeds of gap, its parts, bound, σ and G at every measured point."""
    quantities = ["gap", "variance_part", "fitting_part", "bound", "sigma", "jacobian"]
    rows = theory[theory["quantity"].isin(quantities)]
    if rows.empty:
        return pd.DataFrame()
    keys = ["experiment", "stage", "steps", "support", "query"]
    table = rows.pivot_table(index=keys, columns="quantity", values="value", observed=True)
    return table.reset_index().astype({"support": int, "query": int})


def sweep(points: pd.DataFrame, varied: str, fixed: str) -> pd.DataFrame:
    """Points where ``varied`` changes, ``fixed`` has its usual value and K its largest one."""
    usual = points[fixed].mode().iloc[0]
    longest = points.groupby(["experiment", "stage"], observed=True)["steps"].transform("max")
    chosen: pd.DataFrame = points[(points[fixed] == usual) & (points["steps"] == longest)]
    return chosen.sort_values(varied)


def _decay(theory: pd.DataFrame, varied: str, fixed: str) -> Result:
    points = gap_points(theory)
    if points.empty:
        return None
    slopes = {
        str(experiment): loglog_slope(group[varied], group["gap"])
        for experiment, group in _trained(points, varied, fixed).groupby(
            "experiment", observed=True
        )
        if group[varied].nunique() > 1
    }
    if not slopes:
        return None
    steepest = max(slopes.values(), key=lambda slope: abs(slope.mean + 0.5))
    falls = all(slope.mean < 0 for slope in slopes.values())
    as_stated = all(slope.low <= -0.5 <= slope.high < 0 for slope in slopes.values())
    ours = ", ".join(f"{name}: slope {slope.mean:.2f}" for name, slope in slopes.items())
    return ours, Finding(steepest, np.nan, falls, as_stated, certain=True)


def _trained(points: pd.DataFrame, varied: str, fixed: str) -> pd.DataFrame:
    chosen = sweep(points, varied, fixed)
    return chosen.query("stage == 'best'")
