"""Statistics of a multiverse: pure functions of arrays over universes.

These functions do not depend on folders, methods or claims. A multiverse is not a sample from a
population of readings; its shares are means over stated weights. The unit is the universe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
LEVEL = 0.95
FEWEST = 3
"""Fewest universes in each of the four cells of an interaction."""


class Estimate(NamedTuple):
    """A value with its 95 % interval; NaN if unknown."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


UNKNOWN = Estimate(np.nan, np.nan, np.nan)


def share(
    for_it: Sequence[bool], weights: Floats, random: np.random.Generator, resamples: int = 2000
) -> Estimate:
    """Compute a weighted share of universes, with a percentile bootstrap interval.

    If all universes agree, resampling shows nothing. The far end is then the share with which all n
    would agree with a probability of 2.5 %, where n is Kish's effective number of universes.

    Args:
        for_it: whether each universe is for the claim.
        weights: (universes,).
        random: source of randomness.
        resamples: number of bootstrap samples.
    """
    values = np.asarray(for_it, dtype=float)
    if not len(values):
        return UNKNOWN
    w = np.asarray(weights, dtype=float)
    mean = float(np.average(values, weights=w))
    if values.min() == values.max():
        limit = ((1 - LEVEL) / 2) ** (w @ w / w.sum() ** 2)
        return Estimate(mean, limit, 1.0) if mean else Estimate(mean, 0.0, 1 - limit)
    chosen = random.integers(len(values), size=(resamples, len(values)))
    drawn = (values * w)[chosen].sum(1) / w[chosen].sum(1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean, float(low), float(high))


def difference_of_shares(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Return the difference of two independent shares, with Newcombe's score interval.

    This is method 10 of Newcombe (1998).
    """
    if not (len(first) and len(second)):
        return UNKNOWN
    (p, low_p, high_p), (q, low_q, high_q) = (_wilson(np.asarray(x)) for x in (first, second))
    below = np.hypot(p - low_p, high_q - q)
    above = np.hypot(high_p - p, q - low_q)
    return Estimate(p - q, p - q - float(below), p - q + float(above))


def _wilson(values: NDArray[Any]) -> Estimate:
    """Return a share with Wilson's score interval."""
    n, p = len(values), float(values.mean())
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Estimate(p, float(centre - half), float(centre + half))


def main_effects(
    for_it: Sequence[bool], levels: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], Estimate]:
    """Return how much each level of each fork raises the share of universes that are for the claim.

    An effect is the share among universes with the level minus that among the others. For forks
    that decide nothing, about 5 % of the intervals exclude 0.

    Args:
        for_it: whether each universe is for the claim.
        levels: fork -> its level in each universe.
    """
    values, found = np.asarray(for_it, dtype=bool), {}
    for fork, taken in levels.items():
        names = np.asarray(taken)
        for name in dict.fromkeys(taken):
            there = names == name
            found[fork, name] = difference_of_shares(values[there], values[~there])
    return found


class Components(NamedTuple):
    """Variances of an effect.

    Attributes:
        seed: between seeds of one universe.
        reading: between universes.
        n: number of universes with two seeds.
    """

    seed: float
    reading: float
    n: int

    @property
    def share_of_seed(self) -> float:
        """Share of a single run's variance that is luck."""
        total = self.seed + self.reading
        return self.seed / total if total > 0 else np.nan


def components(effects: Floats) -> Components:
    """Estimate variance components of a one-way layout, with two seeds nested in universes.

    The seeds' component is half the mean squared difference. The universes' is the variance of
    their means minus half of that, or 0 if negative.

    Args:
        effects: (universes, 2), NaN where there is no second seed.
    """
    known = effects[np.isfinite(effects).all(1)]
    if len(known) < 2:
        return Components(np.nan, np.nan, len(known))
    seed = float(((known[:, 0] - known[:, 1]) ** 2).mean() / 2)
    between = float(known.mean(1).var(ddof=1)) - seed / 2
    return Components(seed, max(0.0, between), len(known))


class Interaction(NamedTuple):
    """Two levels whose joint effect is not the sum of both.

    Attributes:
        first: fork and level.
        second: fork and level.
        effect: (mean with both − mean with the second alone) − (mean with the first alone − mean
            with neither), in held-out universes.
        p: its p there.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    effect: float
    p: float


def interactions(effects: Floats, levels: Mapping[str, Sequence[str]]) -> list[Interaction]:
    """Find interactions of two forks in one half of the universes that replicate in the other half.

    The first half is every other universe. A pair is found there if its p times the number of pairs
    is below 5 %, and it replicates if it has the same sign and p < 0.05 in the second half. Without
    any interaction, that happens in about 0.1 % of multiverses.

    Args:
        effects: (n,) effect in each universe.
        levels: fork -> its level in each universe; for a range, its half.
    """
    half = np.arange(len(effects)) % 2 == 0
    pairs = [
        ((fork, a), (other, b))
        for fork, other in combinations(levels, 2)
        for a in _contrasted(levels[fork])
        for b in _contrasted(levels[other])
    ]
    seen = {pair: _contrast(effects, levels, pair, half) for pair in pairs}
    tested = {pair: found for pair, found in seen.items() if np.isfinite(found[1])}
    replicated = []
    for pair, (effect, p) in tested.items():
        if p * len(tested) >= 1 - LEVEL:
            continue
        again, p_again = _contrast(effects, levels, pair, ~half)
        if p_again < 1 - LEVEL and np.sign(again) == np.sign(effect):
            replicated.append(Interaction(*pair, again, p_again))
    return replicated


def _contrasted(taken: Sequence[str]) -> list[str]:
    """Return the levels to compare with all others; of two levels, only one."""
    found = list(dict.fromkeys(taken))
    return found[:1] if len(found) == 2 else found if len(found) > 2 else []


def _contrast(
    effects: Floats,
    levels: Mapping[str, Sequence[str]],
    pair: tuple[tuple[str, str], tuple[str, str]],
    chosen: NDArray[np.bool_],
) -> tuple[float, float]:
    """Return the interaction's contrast among some universes, and its two-sided Welch p."""
    (fork, a), (other, b) = pair
    first, second = np.asarray(levels[fork]) == a, np.asarray(levels[other]) == b
    signs = (
        (first & second, 1),
        (~first & second, -1),
        (first & ~second, -1),
        (~first & ~second, 1),
    )
    cells = [(effects[chosen & cell], sign) for cell, sign in signs]
    if min(len(values) for values, _ in cells) < FEWEST:
        return np.nan, np.nan
    contrast = float(sum(sign * values.mean() for values, sign in cells))
    parts = np.array([values.var(ddof=1) / len(values) for values, _ in cells])
    free = np.array([len(values) - 1 for values, _ in cells])
    if not parts.sum():
        return contrast, np.nan
    degrees = parts.sum() ** 2 / (parts**2 / free).sum()
    return contrast, float(2 * stats.t.sf(abs(contrast) / np.sqrt(parts.sum()), degrees))


# ---------------------------------------------------------------- the paper's reading


def distances(values: Floats, printed: Floats) -> Floats:
    """Compute the distance of each universe from printed numbers, in units of the numbers' spread.

    It is the root mean square, over the numbers that a universe has, of (value − printed) /
    standard deviation over universes. It is NaN for a universe that lacks half of them or more.

    Args:
        values: (universes, numbers), NaN where there is none.
        printed: (numbers,).
    """
    spread = np.array([_sd(column[np.isfinite(column)]) for column in values.T])
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = ((values - printed) / spread) ** 2
    known = np.isfinite(squares)
    n = known.sum(1)
    enough = (n > 0) & (2 * n > known.any(0).sum())
    sums = np.where(known, squares, 0.0).sum(1)
    return np.where(enough, np.sqrt(sums / np.maximum(n, 1)), np.nan)


def _sd(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan
