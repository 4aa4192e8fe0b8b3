"""Tests over seeds, and Holm's adjustment for their number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from lft.report.statistics.intervals import LEVEL, NOTHING, UNBOUNDED, Floats, Interval, equal

ALPHA = 0.05


class Comparison(NamedTuple):
    """Difference of two independent means; ``p`` is two-sided, NaN where nothing varies."""

    difference: Interval
    p: float


def two_sided_p(values: ArrayLike, null: float = 0.0) -> float:
    """Student's t test of a mean against ``null``; NaN for fewer than two values or equal ones."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all() or equal(array):
        return np.nan
    t = (array.mean() - null) / (array.std(ddof=1) / np.sqrt(len(array)))
    return float(2 * stats.t.sf(abs(t), len(array) - 1))


def prediction_p(values: ArrayLike, further: float) -> float:
    """Two-sided p that one more value is as far from the mean as ``further``: below 5 % outside
    :func:`~lft.report.statistics.prediction_interval`; NaN for fewer than two values or equal
    ones."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all() or equal(array):
        return np.nan
    t = (further - array.mean()) / (array.std(ddof=1) * np.sqrt(1 + 1 / len(array)))
    return float(2 * stats.t.sf(abs(t), len(array) - 1))


def greater_p(values: ArrayLike, null: float = 0.0) -> float:
    """One-sided t test: a small p says that the mean is above ``null``.

    Equal values say it by themselves (p = 0) or not at all (p = 1); NaN for fewer than two.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all():
        return np.nan
    if equal(array):
        return 0.0 if array.mean() > null else 1.0
    t = (array.mean() - null) / (array.std(ddof=1) / np.sqrt(len(array)))
    return float(stats.t.sf(t, len(array) - 1))


def equivalence_p(values: ArrayLike, margin: float) -> float:
    """Two one-sided t tests (TOST): a small p says that |mean| is below the margin.

    NaN for fewer than two values or equal ones.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all() or equal(array):
        return np.nan
    return max(greater_p(array, -margin), greater_p(-array, -margin))


def beyond_p(values: ArrayLike, margin: float) -> float:
    """Two-sided p that |mean| exceeds the margin: the smaller one-sided one, doubled."""
    array = np.asarray(values, dtype=float)
    if np.isnan(two_sided_p(array)):
        return np.nan
    return min(1.0, 2 * min(greater_p(array, margin), greater_p(-array, margin)))


def largest_mean_p(
    values: ArrayLike, random: np.random.Generator, draws: int = 20_000
) -> tuple[int, float]:
    """Rotation test (Langsrud, 2005) that the largest of several correlated means is above 0.

    If all means are 0, rotating the units changes nothing for normal values, whatever the
    correlations; so the largest t of the data is compared with those of random rotations. A t test
    of the column that happens to be the largest would nearly always find something.

    Args:
        values: (n, columns).

    Returns:
        The column with the largest t, and the one-sided p; 1 where no mean is above 0, NaN for
        fewer than two units.
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
    """D'Agostino's test (1970) that values are skewed; NaN for fewer than eight, or equal ones.

    A t test of skewed values finds too much, and from ten of them it cannot be seen: the samples
    that mislead it are those without a value from the long tail. So this says little about one
    claim, but how often it is small over many claims says whether t tests may be trusted.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 8 or not np.isfinite(array).all() or equal(array):
        return np.nan
    return float(stats.skewtest(array).pvalue)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down adjustment. An unknown p-value stays NaN but counts as a test: how many
    there are must not depend on what came out."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(np.where(np.isnan(p), np.inf, p))
    factors = np.arange(len(p), 0, -1)
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted


def unpaired(
    a: ArrayLike, b: ArrayLike, unit: str = "values", bounds: tuple[float, float] = UNBOUNDED
) -> Comparison:
    """Welch's t test of mean a − mean b ≠ 0, a (n,) and b (m,)."""
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
    """Welch's two one-sided tests that |mean a − mean b| is below the margin."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not _spread(first, second):
        return np.nan
    error, free = _welch(first, second)
    return float(stats.t.sf((margin - abs(first.mean() - second.mean())) / error, free))


def _welch(first: Floats, second: Floats) -> tuple[float, float]:
    """Standard error of a difference of means, and its degrees of freedom (Welch, 1947)."""
    a, b = (float(values.var(ddof=1)) / len(values) for values in (first, second))
    free = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    return float(np.sqrt(a + b)), free


def _spread(first: Floats, second: Floats) -> bool:
    """Whether two samples have a spread that a test can use."""
    enough = min(len(first), len(second)) > 1
    finite = np.isfinite(first).all() and np.isfinite(second).all()
    return bool(enough and finite and not (equal(first) and equal(second)))
