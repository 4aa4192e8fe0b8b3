"""Tests over seeds, and Holm's adjustment for multiple tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from lft.report.statistics.intervals import LEVEL, NOTHING, UNBOUNDED, Floats, Interval, equal

ALPHA = 0.05
"""Level of all tests."""


class Comparison(NamedTuple):
    """Comparison of two independent means.

    Attributes:
        difference: with its interval.
        p: two-sided; NaN if nothing varies.
    """

    difference: Interval
    p: float


def two_sided_p(values: ArrayLike, null: float = 0.0) -> float:
    """Test a mean against ``null`` with Student's t test.

    It is NaN for fewer than two values or equal ones.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all() or equal(array):
        return np.nan
    t = (array.mean() - null) / (array.std(ddof=1) / np.sqrt(len(array)))
    return float(2 * stats.t.sf(abs(t), len(array) - 1))


def prediction_p(values: ArrayLike, further: float) -> float:
    """Return the two-sided p that one more value is as far from the mean as ``further``.

    It is below 5 % outside :func:`~lft.report.statistics.prediction_interval`, and NaN for fewer
    than two values or equal ones.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all() or equal(array):
        return np.nan
    t = (further - array.mean()) / (array.std(ddof=1) * np.sqrt(1 + 1 / len(array)))
    return float(2 * stats.t.sf(abs(t), len(array) - 1))


def greater_p(values: ArrayLike, null: float = 0.0) -> float:
    """Test whether a mean is above ``null``, with a one-sided t test.

    Equal values give p = 0 above ``null`` and p = 1 otherwise; fewer than two values give NaN.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all():
        return np.nan
    if equal(array):
        return 0.0 if array.mean() > null else 1.0
    t = (array.mean() - null) / (array.std(ddof=1) / np.sqrt(len(array)))
    return float(stats.t.sf(t, len(array) - 1))


def equivalence_p(values: ArrayLike, margin: float) -> float:
    """Test whether |mean| is below the margin, by two one-sided t tests (TOST).

    It is NaN for fewer than two values or equal ones.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all() or equal(array):
        return np.nan
    return max(greater_p(array, -margin), greater_p(-array, -margin))


def beyond_p(values: ArrayLike, margin: float) -> float:
    """Return the two-sided p that |mean| exceeds the margin: twice the smaller one-sided p."""
    array = np.asarray(values, dtype=float)
    if np.isnan(two_sided_p(array)):
        return np.nan
    return min(1.0, 2 * min(greater_p(array, margin), greater_p(-array, margin)))


def largest_mean_p(
    values: ArrayLike, random: np.random.Generator, draws: int = 20_000
) -> tuple[int, float]:
    """Test whether the largest of several correlated means is above 0, by a rotation test.

    If all means are 0, rotating the units does not change the distribution of normal values,
    whatever the correlations (Langsrud, 2005). The largest t of the data is therefore compared with
    those of random rotations. A t test of the column that happens to be largest would nearly always
    find something.

    Args:
        values: (n, columns).
        random: source of the rotations.
        draws: number of rotations.

    Returns:
        The column with the largest t, and the one-sided p; 1 if no mean is above 0, NaN for fewer
        than two units.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all():
        return 0, np.nan
    scaled = array / np.sqrt(np.maximum((array**2).sum(0), np.finfo(float).tiny))
    cosines = scaled.sum(0) / np.sqrt(len(array))  # t grows with the cosine to (1, …, 1)
    column = int(cosines.argmax())
    if cosines[column] <= 0:
        return column, 1.0
    rotated = random.standard_normal((draws, len(array)))
    rotated /= np.linalg.norm(rotated, axis=1, keepdims=True)
    as_large = ((rotated @ scaled).max(1) >= cosines[column]).sum()
    return column, float((1 + as_large) / (1 + draws))


def skewness_p(values: ArrayLike) -> float:
    """Test whether values are skewed (D'Agostino, 1970); NaN for fewer than eight, or equal ones.

    A t test of skewed values is significant too often. Ten values cannot reveal that, because the
    misleading samples are those without a value from the long tail. One p therefore says little
    about one claim, but the share of small p over many claims says whether t tests can be trusted.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 8 or not np.isfinite(array).all() or equal(array):
        return np.nan
    return float(stats.skewtest(array).pvalue)


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p-values by Holm's step-down method.

    An unknown p-value stays NaN but counts as a test, because the number of tests must not depend
    on the results.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(np.where(np.isnan(p), np.inf, p))
    factors = np.arange(len(p), 0, -1)
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted


def unpaired(
    a: ArrayLike, b: ArrayLike, unit: str = "values", bounds: tuple[float, float] = UNBOUNDED
) -> Comparison:
    """Test mean a − mean b ≠ 0 with Welch's t test.

    Args:
        a: (n,).
        b: (m,).
        unit: name of the units, for the interval's name.
        bounds: smallest and largest possible difference.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n = f"{len(first)} and {len(second)} {unit}"
    if min(len(first), len(second)) == 0:
        return Comparison(NOTHING, np.nan)
    mean = float(first.mean() - second.mean())
    total = len(first) + len(second)
    if not _spread(first, second):
        return Comparison(Interval(mean, np.nan, np.nan, total, f"no interval ({n})"), np.nan)
    error, free = _welch(first, second)
    half = float(stats.t.ppf((1 + LEVEL) / 2, free) * error)
    ends = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    cut = ends != (mean - half, mean + half)
    p = float(2 * stats.t.sf(abs(mean) / error, free))
    return Comparison(Interval(mean, *ends, total, f"95 % Welch interval over {n}", cut), p)


def unpaired_equivalence_p(a: ArrayLike, b: ArrayLike, margin: float) -> float:
    """Test whether |mean a − mean b| is below the margin, by Welch's two one-sided tests."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not _spread(first, second):
        return np.nan
    error, free = _welch(first, second)
    return float(stats.t.sf((margin - abs(first.mean() - second.mean())) / error, free))


def _welch(first: Floats, second: Floats) -> tuple[float, float]:
    """Return Welch's standard error of a difference of means, and its degrees of freedom."""
    a, b = (float(values.var(ddof=1)) / len(values) for values in (first, second))
    free = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    return float(np.sqrt(a + b)), free


def _spread(first: Floats, second: Floats) -> bool:
    """Return whether two samples vary enough for a test."""
    enough = min(len(first), len(second)) > 1
    finite = np.isfinite(first).all() and np.isfinite(second).all()
    return bool(enough and finite and not (equal(first) and equal(second)))
