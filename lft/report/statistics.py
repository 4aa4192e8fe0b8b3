"""Statistics of the report: pure functions on numbers per seed and on (seeds, tasks) arrays.

Nothing here knows of folders, methods or claims. A seed is the unit of every test: it has a
meta-training, a victim and test tasks of its own, while test tasks of one seed share all of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import gammaln

LEVEL = 0.95
"""Of all intervals, unless another is asked for."""
ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 100_000
"""No search for a number of seeds goes beyond."""

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and, where one can be had, its interval; ``kind`` names what the interval is.

    ``cut`` says that an end lay outside what the quantity can be, and stands at its limit.
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


class Comparison(NamedTuple):
    """Difference of two independent means; ``p`` is two-sided, NaN where nothing varies."""

    difference: Interval
    p: float


class Finding(NamedTuple):
    """What a measurement says about a statement of the theory.

    Attributes:
        ours: our number, as text.
        effects: (seeds,) positive where the statement holds; empty for an exact check.
        smallest: smallest effect of interest, in the unit of ``effects``.
        equal: whether 0 itself is on the statement's side ("not slower than"), so that it is judged
            by non-inferiority within ``smallest``.
        unit: what ``effects`` are.
        readings: how many experiments were looked at; ``effects`` are those that speak most
            against the statement (:func:`against`).
        holds: of an exact check only: whether the inequality or identity held throughout.
        note: what else should be known.
    """

    ours: str
    effects: tuple[float, ...] = ()
    smallest: float = np.nan
    equal: bool = False
    unit: str = ""
    readings: int = 1
    holds: bool | None = None
    note: str = ""


# ---------------------------------------------------------------- intervals


def mean_interval(
    values: ArrayLike,
    unit: str = "seeds",
    bounds: tuple[float, float] = UNBOUNDED,
    level: float = LEVEL,
) -> Interval:
    """Student t interval of a mean, cut at the limits of what the mean can be.

    Fewer than two values, or equal ones, have a mean but no interval: their spread says nothing
    about the next value.

    Args:
        values: (n,) one value per unit; a NaN makes the mean NaN.
        unit: what the n values are, for the interval's name.
        bounds: smallest and largest possible mean.
    """
    return _t_interval(values, unit, bounds, level, extra=0.0, kind="t interval over")


def prediction_interval(
    values: ArrayLike, unit: str = "seeds", bounds: tuple[float, float] = UNBOUNDED
) -> Interval:
    """95 % interval for one more value of the kind given: mean ± t s √(1 + 1/n)."""
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
    if _equal(array):
        return Interval(mean, np.nan, np.nan, n, f"no interval ({n} equal {unit})")
    half = stats.t.ppf((1 + level) / 2, n - 1) * array.std(ddof=1) * np.sqrt(extra + 1 / n)
    low, high = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    cut = mean - half < bounds[0] or mean + half > bounds[1]
    name = f"{level:.0%} {kind} {n} {unit}".replace("%", " %", 1)
    return Interval(mean, float(low), float(high), n, name, bool(cut))


# ---------------------------------------------------------------- tests over seeds


def two_sided_p(values: ArrayLike, null: float = 0.0) -> float:
    """Student's t test of a mean against ``null``; NaN for fewer than two values or equal ones."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all() or _equal(array):
        return np.nan
    t = (array.mean() - null) / (array.std(ddof=1) / np.sqrt(len(array)))
    return float(2 * stats.t.sf(abs(t), len(array) - 1))


def greater_p(values: ArrayLike, null: float = 0.0) -> float:
    """One-sided t test: a small p says that the mean is above ``null``.

    Equal values say it by themselves (p = 0) or not at all (p = 1); NaN for fewer than two.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all():
        return np.nan
    if _equal(array):
        return 0.0 if array.mean() > null else 1.0
    t = (array.mean() - null) / (array.std(ddof=1) / np.sqrt(len(array)))
    return float(stats.t.sf(t, len(array) - 1))


def equivalence_p(values: ArrayLike, margin: float) -> float:
    """Two one-sided t tests (TOST): a small p says that |mean| is below the margin.

    NaN for fewer than two values or equal ones.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all() or _equal(array):
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
    return bool(enough and finite and not (_equal(first) and _equal(second)))


def against(effects: Mapping[str, ArrayLike]) -> str:
    """Of several readings of one statement, the one that speaks most against it.

    Where all means are positive it is the one with the largest p, so that its test is that of
    "the statement holds in every reading" (intersection-union); otherwise it is the negative one
    with the smallest p, whose p must be multiplied by the number of readings.
    """
    means = {
        name: float(np.mean(np.asarray(values, dtype=float))) for name, values in effects.items()
    }
    p = {name: np.nan_to_num(two_sided_p(values), nan=1.0) for name, values in effects.items()}
    negative = [name for name, mean in means.items() if not mean > 0]
    if negative:
        return min(negative, key=lambda name: (p[name], means[name]))
    return max(p, key=lambda name: (p[name], -means[name]))


# ---------------------------------------------------------------- sizes of effects


def hedges_g(values: ArrayLike) -> float:
    """Hedges' g of paired differences: mean over standard deviation, freed of its small-sample
    bias by J = Γ(f/2) / (√(f/2) Γ((f−1)/2)) with f = n − 1 (Hedges, 1981); NaN for n < 3."""
    array = np.asarray(values, dtype=float)
    free = len(array) - 1
    if free < 2 or not np.isfinite(array).all() or _equal(array):
        return np.nan
    correction = np.exp(gammaln(free / 2) - gammaln((free - 1) / 2)) / np.sqrt(free / 2)
    return float(correction * array.mean() / array.std(ddof=1))


def improvement(a: ArrayLike, b: ArrayLike, *, paired: bool) -> float:
    """Probability of improvement P(a > b), ties counting half (Agarwal et al., 2021).

    Args:
        a: (seeds, tasks); ``b`` likewise.
        paired: whether the tasks are the same, each being a pair; otherwise all pairs of tasks of
            one seed are compared.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if paired:
        return float(((first > second) + 0.5 * (first == second)).mean())
    pairs = [
        (x[:, None] > y).mean() + 0.5 * (x[:, None] == y).mean()
        for x, y in zip(first, second, strict=True)
    ]
    return float(np.mean(pairs))


def hierarchical_bootstrap(
    effect: Callable[[Floats, Floats], Floats],
    a: Floats,
    b: Floats,
    random: np.random.Generator,
    *,
    paired: bool,
    draws: int = 1000,
) -> tuple[float, float]:
    """Percentile interval of a mean effect, seeds drawn first and tasks within each of them.

    A diagnostic only: with ten seeds it covers less than it says.

    Args:
        effect: from means over tasks (..., seeds) of a and of b to effects of the same shape.
        a: (seeds, tasks); ``b`` likewise, of the same tasks where ``paired``.
    """
    n, of_a, of_b = len(a), a.shape[1], b.shape[1]
    seeds = random.integers(n, size=(draws, n))
    shares = random.multinomial(of_a, np.full(of_a, 1 / of_a), size=(draws, n)) / of_a
    others = shares
    if not paired:
        others = random.multinomial(of_b, np.full(of_b, 1 / of_b), size=(draws, n)) / of_b
    means = (np.einsum("dst,dst->ds", w, x[seeds]) for w, x in ((shares, a), (others, b)))
    low, high = np.quantile(effect(*means).mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


# ---------------------------------------------------------------- power


def upper_sd(values: ArrayLike, level: float = 0.8) -> float:
    """One-sided upper confidence limit of a standard deviation: s √((n−1) / χ²)."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all():
        return np.nan
    free = len(array) - 1
    return float(array.std(ddof=1) * np.sqrt(free / stats.chi2.ppf(1 - level, free)))


def power(effect: ArrayLike, n: ArrayLike, alpha: float) -> Floats:
    """Power of the two-sided one-sample t test, from the noncentral t distribution.

    Args:
        effect: in standard deviations between seeds.
        n: seeds.
    """
    seeds = np.asarray(n, dtype=float)
    limit = stats.t.ppf(1 - alpha / 2, seeds - 1)
    shift = np.asarray(effect, dtype=float) * np.sqrt(seeds)
    upper = stats.nct.sf(limit, seeds - 1, shift)
    lower = stats.nct.cdf(-limit, seeds - 1, shift)
    return np.asarray(np.nan_to_num(upper) + np.nan_to_num(lower))


def seeds_needed(sd: float, effect: float, alpha: float, wanted: float = POWER) -> int | None:
    """Fewest seeds with which an effect is found with the wanted power; None beyond MOST_SEEDS."""
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
    """Smallest effect that n seeds find with the wanted power, in the unit of ``sd``."""
    if n < 2 or not (np.isfinite(sd) and sd > 0):
        return np.nan
    high = 1.0
    while power(high, n, alpha) < wanted:
        high *= 2
    return float(sd * brentq(lambda effect: float(power(effect, n, alpha)) - wanted, 0.0, high))


# ---------------------------------------------------------------- first steps


def restricted_mean(first: ArrayLike, horizon: float) -> float:
    """Kaplan-Meier mean of a first step, restricted to the horizon.

    Every task is watched until the horizon, so that the area below the Kaplan-Meier curve is the
    mean of min(first, horizon).

    Args:
        first: (n,) first steps, NaN where there was none.
    """
    steps = np.asarray(first, dtype=float)
    return float(np.minimum(np.nan_to_num(steps, nan=horizon), horizon).mean())


def share_arrived(first: ArrayLike) -> float:
    """Share of tasks that have a first step at all."""
    return float(np.isfinite(np.asarray(first, dtype=float)).mean())


def _equal(values: Floats) -> bool:
    """Whether all values are the same, up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
