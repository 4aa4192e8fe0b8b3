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


NOTHING = Interval(np.nan, np.nan, np.nan, 0, "no interval (n = 0)")


class Comparison(NamedTuple):
    """Differences a − b.

    ``effect`` is Cohen's d: the mean difference in standard deviations, for paired values those of
    the differences (d_z). ``p`` and ``effect`` are NaN where the values do not vary.
    """

    difference: Interval
    p: float
    effect: float


class Finding(NamedTuple):
    """What a test says.

    Attributes:
        ours: our number, as text.
        interval: of the tested quantity.
        holds: whether the estimate is on the claim's side.
        proven: whether the whole interval is.
        exact: whether the quantity is not random, so that one seed is enough.
        p: p-value, not yet adjusted; NaN where the interval alone decides.
        note: what else should be known.
    """

    ours: str
    interval: Interval
    holds: bool
    proven: bool
    exact: bool = False
    p: float = np.nan
    note: str = ""


def mean_interval(values: ArrayLike, unit: str = "seeds") -> Interval:
    """95 % Student t interval of a mean.

    Fewer than two values, or equal ones, have a mean but no interval: their spread says nothing
    about the next value.

    Args:
        values: (n,) one value per unit; a NaN makes the mean NaN.
        unit: what the n values are, for the interval's name.
    """
    array = np.asarray(values, dtype=float)
    n = len(array)
    if n == 0:
        return NOTHING
    mean = float(array.mean())
    if n == 1 or not np.isfinite(mean):
        return Interval(mean, np.nan, np.nan, n, f"no interval (n = {n})")
    if _equal(array):
        return Interval(mean, np.nan, np.nan, n, f"no interval ({n} equal {unit})")
    low, high = stats.t.interval(LEVEL, n - 1, mean, stats.sem(array))
    return Interval(mean, float(low), float(high), n, f"95 % t interval over {n} {unit}")


def paired(a: ArrayLike, b: ArrayLike, unit: str = "pairs") -> Comparison:
    """Paired t test of mean a − b ≠ 0, both (n,) and in the same order."""
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    interval = mean_interval(difference, unit)
    if np.isnan(interval.low):
        return Comparison(interval, np.nan, np.nan)
    p = float(stats.ttest_1samp(difference, 0.0).pvalue)
    return Comparison(interval, p, float(interval.mean / difference.std(ddof=1)))


def unpaired(a: ArrayLike, b: ArrayLike, unit: str = "values") -> Comparison:
    """Welch's t test of mean a − mean b ≠ 0, a (n,) and b (m,)."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n = f"{len(first)} and {len(second)} {unit}"
    if min(len(first), len(second)) == 0:
        return Comparison(NOTHING, np.nan, np.nan)
    mean = float(first.mean() - second.mean())
    total = len(first) + len(second)
    few = min(len(first), len(second)) == 1
    if few or not np.isfinite(mean) or (_equal(first) and _equal(second)):
        interval = Interval(mean, np.nan, np.nan, total, f"no interval ({n})")
        return Comparison(interval, np.nan, np.nan)
    test = stats.ttest_ind(first, second, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    spread = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    interval = Interval(mean, float(low), float(high), total, f"95 % Welch interval over {n}")
    return Comparison(interval, float(test.pvalue), float(mean / spread))


def equivalence_p(difference: ArrayLike, margin: float) -> float:
    """Two one-sided t tests (TOST): a small p says that |mean difference| is below the margin.

    NaN for fewer than two differences, or equal ones.
    """
    values = np.asarray(difference, dtype=float)
    if len(values) < 2 or _equal(values):
        return np.nan
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return float(max(above, below))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment; NaN entries stay NaN and do not count as tests."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full_like(p, np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted


def _equal(values: NDArray[np.float64]) -> bool:
    """Whether all values are the same, up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
