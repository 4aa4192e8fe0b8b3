"""Random search: draws that cover their ranges, expected best scores, and edges."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from lft.results.tuning import edges_are_worse, expected_best, random_trials
from lft.seeding import generator

RANGES = {"training.learning_rate": (1e-3, 1e-1), "finetuner.output_scale": (0.01, 10.0)}


def test_trials_cover_every_part_of_every_range() -> None:
    trials = random_trials(RANGES, 12, generator("a"))
    assert len(trials) == 12
    for key, (low, high) in RANGES.items():
        values = [trial[key] for trial in trials]
        shares = np.sort(np.log(values) - math.log(low)) / math.log(high / low)
        # One in each twelfth; rounding to two digits moves a value by at most 5 %.
        slack = math.log(1.05) / math.log(high / low)
        assert (np.abs(shares - (np.arange(12) + 0.5) / 12) <= 0.5 / 12 + slack).all()
        assert all(float(f"{value:.2g}") == value for value in values)
    assert trials == random_trials(RANGES, 12, generator("a"))
    assert trials != random_trials(RANGES, 12, generator("b"))
    # The ranges are shuffled apart: no rank follows the other.
    ranks = [np.argsort(np.argsort([trial[key] for trial in trials])) for key in RANGES]
    assert abs(np.corrcoef(*ranks)[0, 1]) < 0.9


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_expected_best_is_the_mean_over_all_draws(n: int) -> None:
    scores = [3.0, 1.0, 1.0, 7.0, 2.5]
    every = [min(draw) for draw in product(scores, repeat=n)]
    assert expected_best(scores, n) == pytest.approx(np.mean(every), rel=1e-12)


def test_a_diverged_trial_makes_the_expectation_infinite_until_it_is_never_the_best() -> None:
    assert expected_best([1.0, math.inf], 1) == math.inf
    assert expected_best([1.0, 2.0], 50) == pytest.approx(1.0, abs=1e-12)


def test_edges() -> None:
    values = [1e-3, 1e-2, 3e-2, 1e-1]
    scores, errors = [2.0, 1.0, 1.5, 1.2], [0.1, 0.3, 0.1, 0.1]
    # At 1e-1 the score is worse by 0.2, less than the best trial's standard error of 0.3.
    assert edges_are_worse(values, scores, errors, 1e-3, 1e-1) == {"low": True, "high": False}
    assert edges_are_worse(values, [0.5, *scores[1:]], errors, 1e-3, 1e-1)["low"] is False
    assert edges_are_worse(values[:3], scores[:3], errors[:3], 1e-3, 1e-1)["high"] is None
