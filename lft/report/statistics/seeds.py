"""Power: how many seeds an effect needs, and which effect a number of seeds can find."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from lft.report.statistics.intervals import Floats

POWER = 0.8
"""Default power."""
MOST_SEEDS = 100_000
"""Largest number of seeds that the search considers."""


def upper_sd(values: ArrayLike, level: float = 0.8) -> float:
    """Return the one-sided upper confidence limit of a standard deviation: s √((n−1) / χ²)."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all():
        return np.nan
    free = len(array) - 1
    return float(array.std(ddof=1) * np.sqrt(free / stats.chi2.ppf(1 - level, free)))


def power(effect: ArrayLike, n: ArrayLike, alpha: float) -> Floats:
    """Compute the power of the two-sided one-sample t test, from the noncentral t distribution.

    Args:
        effect: in standard deviations between seeds.
        n: number of seeds.
        alpha: level of the test.
    """
    seeds = np.asarray(n, dtype=float)
    limit = stats.t.ppf(1 - alpha / 2, seeds - 1)
    shift = np.asarray(effect, dtype=float) * np.sqrt(seeds)
    upper = stats.nct.sf(limit, seeds - 1, shift)
    lower = stats.nct.cdf(-limit, seeds - 1, shift)
    return np.asarray(np.nan_to_num(upper) + np.nan_to_num(lower))


def seeds_needed(sd: float, effect: float, alpha: float, wanted: float = POWER) -> int | None:
    """Return the fewest seeds that find an effect with the wanted power; None beyond MOST_SEEDS.

    Args:
        sd: standard deviation between seeds.
        effect: in the unit of ``sd``.
        alpha: level of the test.
        wanted: power.
    """
    if not (np.isfinite(sd) and sd > 0 and effect > 0):
        return None
    low, high = 2, 4
    while power(effect / sd, high, alpha) < wanted:
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return None
    if power(effect / sd, low, alpha) >= wanted:
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect / sd, middle, alpha) >= wanted else (middle, high)
    return high


def detectable(sd: float, n: int, alpha: float, wanted: float = POWER) -> float:
    """Return the smallest effect that n seeds find with the wanted power, in the unit of ``sd``."""
    if n < 2 or not (np.isfinite(sd) and sd > 0):
        return np.nan
    high = 1.0
    while power(high, n, alpha) < wanted:
        high *= 2
    return float(sd * brentq(lambda effect: float(power(effect, n, alpha)) - wanted, 0.0, high))
