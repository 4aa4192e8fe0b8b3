"""Random search for hyper-parameters: what to try, what more trials would bring, and its edges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator

OUTER = 0.2
"""Share of a logarithmic range at either end that counts as its edge."""


def random_trials(
    ranges: Mapping[str, tuple[float, float]], n: int, generator: Generator
) -> list[dict[str, float]]:
    """Combinations drawn uniformly in the logarithm, to two significant digits.

    Of each range, n equal parts are tried once each, in an order of its own (Latin hypercube,
    McKay et al., 1979), so that its edges are tried however small n is.

    Args:
        ranges: dotted key of the experiment -> smallest and largest value.
        n: trials.
        generator: draws them.
    """
    drawn = {}
    for key, (low, high) in ranges.items():
        order = torch.randperm(n, generator=generator)
        within = torch.rand(n, generator=generator, dtype=torch.float64)
        values = low * (high / low) ** ((order + within) / n).numpy()
        drawn[key] = [float(f"{value:.2g}") for value in values]
    return [{key: values[i] for key, values in drawn.items()} for i in range(n)]


def expected_best(scores: Sequence[float], n: int) -> float:
    """Expected lowest score of n trials drawn from those that were run (Dodge et al., 2019, eq. 7).

    E[min] = Σ_i s_(i) [((N − i + 1) / N)ⁿ − ((N − i) / N)ⁿ] with s_(1) ≤ … ≤ s_(N); the curve over
    n shows whether more trials would have helped.

    Args:
        scores: of all N trials, lower is better; one that diverged counts as infinity.
        n: draws, with replacement.
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    total = len(ordered)
    left = np.arange(total, -1, -1) / total
    shares = left[:-1] ** n - left[1:] ** n
    return float(np.sum(ordered[shares > 0] * shares[shares > 0]))


def edges_are_worse(
    values: Sequence[float], scores: ArrayLike, errors: ArrayLike, low: float, high: float
) -> dict[str, bool | None]:
    """Whether the outer fifths of a logarithmic range were tried and are worse than the best.

    Args:
        values: of one hyper-parameter in every trial.
        scores: lower is better.
        errors: their standard errors.
        low: smallest value of the range.
        high: largest value.

    Returns:
        For ``low`` and ``high``: whether the best trial in that fifth is worse than the best of all
        by more than the larger of the two standard errors; None where nothing was tried.
    """
    shares = np.log(np.asarray(values) / low) / math.log(high / low)
    found, spread = np.asarray(scores, dtype=float), np.asarray(errors, dtype=float)
    best = int(np.argmin(found))
    verdicts: dict[str, bool | None] = {}
    for name, tried in (("low", shares <= OUTER), ("high", shares >= 1 - OUTER)):
        if not tried.any():
            verdicts[name] = None
            continue
        here = int(np.argmin(np.where(tried, found, np.inf)))
        gap = found[here] - found[best]
        verdicts[name] = bool(here != best and gap > max(spread[here], spread[best]))
    return verdicts
