"""Effect sizes: over seeds, over test tasks, and as first steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from lft.report.statistics.intervals import LEVEL, Floats, equal


def hedges_g(values: ArrayLike) -> float:
    """Compute Hedges' g of paired differences; NaN for n < 3.

    It is the mean over the standard deviation, corrected for small-sample bias by J = Γ(f/2) /
    (√(f/2) Γ((f−1)/2)) with f = n − 1 (Hedges, 1981).
    """
    array = np.asarray(values, dtype=float)
    free = len(array) - 1
    if free < 2 or not np.isfinite(array).all() or equal(array):
        return np.nan
    correction = np.exp(gammaln(free / 2) - gammaln((free - 1) / 2)) / np.sqrt(free / 2)
    return float(correction * array.mean() / array.std(ddof=1))


def improvement(a: ArrayLike, b: ArrayLike, *, paired: bool) -> float:
    """Compute the probability of improvement P(a > b), with ties counting half.

    See Agarwal et al. (2021).

    Args:
        a: (seeds, tasks).
        b: (seeds, tasks).
        paired: whether both have the same tasks; if not, all pairs of tasks of one seed are
            compared.
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
    """Compute a percentile interval of a mean effect; draws seeds, then tasks within each.

    It is only a diagnostic: with ten seeds it covers less than its level.

    Args:
        effect: maps means over tasks (..., seeds) of a and of b to effects of the same shape.
        a: (seeds, tasks).
        b: (seeds, tasks), of the same tasks if ``paired``.
        random: source of randomness.
        paired: whether to draw the same tasks for both.
        draws: number of bootstrap samples.
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


def restricted_mean(first: ArrayLike, horizon: float) -> float:
    """Compute the Kaplan-Meier mean of a first step, restricted to the horizon.

    Every task is observed until the horizon, so the area below the Kaplan-Meier curve is the mean
    of min(first, horizon).

    Args:
        first: (n,) first steps, NaN where there is none.
        horizon: number of steps.
    """
    steps = np.asarray(first, dtype=float)
    return float(np.minimum(np.nan_to_num(steps, nan=horizon), horizon).mean())


def share_arrived(first: ArrayLike) -> float:
    """Return the share of tasks that have a first step."""
    return float(np.isfinite(np.asarray(first, dtype=float)).mean())
