"""Statistics of the report: intervals over seeds, paired comparisons, equivalence, Holm."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and, where one can be had, its interval; ``kind`` names what the interval is."""

    mean: float
    low: float
    high: float
    n: int
    kind: str

    @property
    def half_width(self) -> float:
        """Half the interval's length; NaN without one."""
        return (self.high - self.low) / 2


class Comparison(NamedTuple):
    """Paired differences a − b.

    ``effect`` is the mean difference in standard deviations of the differences (Cohen's d_z).
    """

    difference: Interval
    p: float
    effect: float


class Finding(NamedTuple):
    """What a test of a claim says.

    Attributes:
        interval: of the tested quantity.
        p: p-value; NaN where the quantity is not random or cannot be tested.
        holds: whether the estimate is on the claim's side.
        every_seed: whether each seed's own estimate is.
        certain: whether the quantity is deterministic, so that no p-value is needed.
    """

    interval: Interval
    p: float
    holds: bool
    every_seed: bool
    certain: bool = False


def mean_interval(values: ArrayLike, unit: str = "seeds") -> Interval:
    """95 % Student t interval of a mean.

    Fewer than two values, or constant ones, have a mean but no interval: their spread says
    nothing about the next value.

    Args:
        values: (n,) one value per unit; NaN makes the mean NaN.
        unit: what the n values are, for the interval's name.
    """
    array = np.asarray(values, dtype=float)
    n = len(array)
    mean = float(array.mean()) if n else np.nan
    if n < 2 or not np.isfinite(mean) or np.ptp(array) == 0:
        return Interval(mean, np.nan, np.nan, n, f"no interval (n = {n} {unit})")
    low, high = stats.t.interval(LEVEL, n - 1, mean, stats.sem(array))
    return Interval(mean, float(low), float(high), n, f"95 % t interval over {n} {unit}")


def paired(a: ArrayLike, b: ArrayLike, unit: str = "task-seed pairs") -> Comparison:
    """Paired t test of a − b ≠ 0, values in the same order.

    Pairs in which a value is not finite are left out; callers count divergence apart.
    """
    difference = _finite(np.asarray(a, dtype=float) - np.asarray(b, dtype=float))
    interval = mean_interval(difference, unit)
    if np.isnan(interval.low):
        return Comparison(interval, np.nan, np.nan)
    spread = difference.std(ddof=1)
    p = float(stats.ttest_1samp(difference, 0.0).pvalue)
    return Comparison(interval, p, float(interval.mean / spread))


def unpaired(a: ArrayLike, b: ArrayLike) -> Comparison:
    """Welch's t test of mean a − mean b ≠ 0; the effect is Cohen's d."""
    first, second = _finite(np.asarray(a, dtype=float)), _finite(np.asarray(b, dtype=float))
    n = len(first) + len(second)
    mean = float(first.mean() - second.mean()) if len(first) and len(second) else np.nan
    if min(len(first), len(second)) < 2 or max(np.ptp(first), np.ptp(second)) == 0:
        return Comparison(
            Interval(mean, np.nan, np.nan, n, f"no interval (n = {n} values)"), np.nan, np.nan
        )
    test = stats.ttest_ind(first, second, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    spread = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    interval = Interval(mean, float(low), float(high), n, f"95 % Welch interval over {n} values")
    return Comparison(interval, float(test.pvalue), float(mean / spread))


def equivalence_p(difference: ArrayLike, margin: float) -> float:
    """Two one-sided t tests (TOST): small p says that |mean difference| is below the margin."""
    values = _finite(np.asarray(difference, dtype=float))
    if len(values) < 2:
        return np.nan
    if np.ptp(values) == 0:
        return 0.0 if abs(values[0]) < margin else 1.0
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return float(max(above, below))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment; NaN entries stay NaN and do not count as tests."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full_like(p, np.nan)
    order = [int(i) for i in np.argsort(p) if not np.isnan(p[i])]
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(order) - rank) * p[index])
        adjusted[index] = min(1.0, running)
    return adjusted


def loglog_slope(x: ArrayLike, y: ArrayLike) -> Interval:
    """Least-squares slope of log y against log x with its 95 % interval."""
    fit = stats.linregress(np.log(np.asarray(x, float)), np.log(np.asarray(y, float)))
    n = len(np.asarray(x))
    if n < 3:
        return Interval(float(fit.slope), np.nan, np.nan, n, f"no interval (n = {n} points)")
    half = stats.t.ppf((1 + LEVEL) / 2, n - 2) * fit.stderr
    kind = f"95 % interval of a least-squares slope over {n} points"
    return Interval(float(fit.slope), float(fit.slope - half), float(fit.slope + half), n, kind)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]
