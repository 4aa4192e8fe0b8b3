"""Intervals of a mean over seeds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
"""Default level of all intervals."""

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and, where possible, its interval.

    Attributes:
        n: number of values.
        kind: name of the interval.
        cut: whether an end lay outside the possible range and was moved to its limit.
    """

    mean: float
    low: float
    high: float
    n: int
    kind: str
    cut: bool = False

    @property
    def half_width(self) -> float:
        """Half the interval's length; NaN without one."""
        return (self.high - self.low) / 2


NOTHING = Interval(np.nan, np.nan, np.nan, 0, "no interval (n = 0)")
UNBOUNDED = (-np.inf, np.inf)


def mean_interval(
    values: ArrayLike,
    unit: str = "seeds",
    bounds: tuple[float, float] = UNBOUNDED,
    level: float = LEVEL,
) -> Interval:
    """Compute Student's t interval of a mean, cut at the limits of the possible range.

    Fewer than two values, or equal ones, have a mean but no interval, because their spread says
    nothing about the next value.

    Args:
        values: (n,) one value per unit; a NaN makes the mean NaN.
        unit: name of the units, for the interval's name.
        bounds: smallest and largest possible mean.
        level: confidence level.
    """
    return _t_interval(values, unit, bounds, level, extra=0.0, kind="t interval over")


def prediction_interval(
    values: ArrayLike, unit: str = "seeds", bounds: tuple[float, float] = UNBOUNDED
) -> Interval:
    """Compute the 95 % interval for one more value: mean ± t s √(1 + 1/n).

    Args:
        values: (n,) one value per unit.
        unit: name of the units, for the interval's name.
        bounds: smallest and largest possible value.
    """
    return _t_interval(values, unit, bounds, LEVEL, extra=1.0, kind="prediction interval from")


def _t_interval(
    values: ArrayLike,
    unit: str,
    bounds: tuple[float, float],
    level: float,
    extra: float,
    kind: str,
) -> Interval:
    array = np.asarray(values, dtype=float)
    n = len(array)
    if n == 0:
        return NOTHING
    mean = float(array.mean())
    if n == 1 or not np.isfinite(mean):
        return Interval(mean, np.nan, np.nan, n, f"no interval (n = {n})")
    if equal(array):
        return Interval(mean, np.nan, np.nan, n, f"no interval ({n} equal {unit})")
    half = stats.t.ppf((1 + level) / 2, n - 1) * array.std(ddof=1) * np.sqrt(extra + 1 / n)
    low, high = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    cut = mean - half < bounds[0] or mean + half > bounds[1]
    name = f"{level:.0%} {kind} {n} {unit}".replace("%", " %", 1)
    return Interval(mean, float(low), float(high), n, name, bool(cut))


def equal(values: Floats) -> bool:
    """Return whether all values are the same, up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
