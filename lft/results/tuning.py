"""Random search for hyper-parameters: trials, what more of them would gain, and edges of ranges."""

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
    """Draw combinations uniformly in the logarithm, rounded to two significant digits.

    Each range is split into n equal parts, and each part is tried once, in random order (Latin
    hypercube, McKay et al., 1979). The edges are thus tried even if n is small.

    Args:
        ranges: dotted key of the experiment -> smallest and largest value.
        n: number of trials.
        generator: source of randomness.
    """
    drawn = {}
    for key, (low, high) in ranges.items():
        order = torch.randperm(n, generator=generator)
        within = torch.rand(n, generator=generator, dtype=torch.float64)
        values = low * (high / low) ** ((order + within) / n).numpy()
        drawn[key] = [float(f"{value:.2g}") for value in values]
    return [{key: values[i] for key, values in drawn.items()} for i in range(n)]


def expected_best(scores: Sequence[float], n: int) -> float:
    """Return the expected lowest score of n trials drawn from those run.

    E[min] = Σ_i s_(i) [((N − i + 1) / N)ⁿ − ((N − i) / N)ⁿ] with s_(1) ≤ … ≤ s_(N) (Dodge et al.,
    2019, eq. 7). The curve over n shows whether more trials would have helped.

    Args:
        scores: scores of all N trials, lower is better; infinity for a diverged trial.
        n: number of draws, with replacement.
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    total = len(ordered)
    left = np.arange(total, -1, -1) / total
    shares = left[:-1] ** n - left[1:] ** n
    return float(np.sum(ordered[shares > 0] * shares[shares > 0]))


def edges_are_worse(
    values: Sequence[float], scores: ArrayLike, errors: ArrayLike, low: float, high: float
) -> dict[str, bool | None]:
    """Check whether the outer fifths of a logarithmic range were tried and are worse than the best.

    Args:
        values: one hyper-parameter's value in every trial.
        scores: lower is better.
        errors: standard errors of the scores.
        low: smallest value of the range.
        high: largest value of the range.

    Returns:
        For ``low`` and ``high``: whether the best trial in that fifth is worse than the best of all
        by more than the larger of the two standard errors; None if nothing was tried there.
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
