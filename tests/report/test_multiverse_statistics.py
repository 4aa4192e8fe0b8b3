"""Statistics of the multiverse, by simulated multiverses whose truth is known.

Rates over S simulations have a standard error of √(p(1 − p)/S); tolerances are some three of them,
and the seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest

from lft.report.multiverse.forest import features, forest
from lft.report.multiverse.statistics import (
    components,
    difference_of_shares,
    distances,
    interactions,
    main_effects,
    share,
)

N = 64


def levels(random: np.random.Generator, n: int = N) -> dict[str, list[str]]:
    """Four forks, as a Latin hypercube gives them: every level equally often."""
    names = {"two": "ab", "other": "cd", "three": "efg", "four": "hijk"}
    return {
        fork: random.permutation([found[i * len(found) // n] for i in range(n)]).tolist()
        for fork, found in names.items()
    }


def test_a_fork_that_decides_everything_is_found() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        taken = levels(random)
        holds = [level == "a" for level in taken["two"]]
        found = main_effects(holds, taken)
        assert found["two", "a"].value == 1
        assert found["two", "a"].low > 0.5
        assert found["two", "b"].value == -1
        largest = max(found, key=lambda key: abs(found[key].value))
        assert largest[0] == "two"


def test_a_fork_that_decides_nothing_has_an_interval_around_0() -> None:
    random = np.random.default_rng(1)
    inside = [
        not found.excludes_zero
        for _ in range(250)
        for found in main_effects(random.random(N) < 0.6, levels(random)).values()
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_newcombes_interval_is_that_of_his_paper() -> None:
    """56/70 against 48/80: 0.2 with 0.0524 to 0.3339 (Newcombe, 1998, table II, method 10)."""
    found = difference_of_shares([True] * 56 + [False] * 14, [True] * 48 + [False] * 32)
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("truth", [0.5, 0.8, 1.0])
def test_the_interval_of_a_share_covers_it(truth: float) -> None:
    random = np.random.default_rng(2)
    covered = []
    for _ in range(400):
        found = share(random.random(N) < truth, np.ones(N), random, resamples=400)
        covered.append(found.low <= truth <= found.high)
    # A percentile bootstrap of 64 zeros and ones covers a little less than 95 %.
    assert np.mean(covered) > 0.91


def test_a_share_follows_its_weights() -> None:
    random = np.random.default_rng(3)
    found = share([True, True, False, False], np.array([3.0, 3.0, 1.0, 1.0]), random)
    assert found.value == 0.75


def test_where_all_readings_agree_the_interval_is_not_a_point() -> None:
    """Of 64 readings none against: a share of 0.025^(1/64) lets that happen with 2.5 %."""
    found = share([True] * N, np.ones(N), np.random.default_rng(4))
    assert found == pytest.approx((1.0, 0.025 ** (1 / N), 1.0))


def test_variance_components_are_those_of_the_simulation() -> None:
    random = np.random.default_rng(5)
    found = []
    for _ in range(400):
        reading = random.normal(0, 2, size=(32, 1))
        found.append(components(reading + random.normal(0, 1, size=(32, 2)))[:2])
    seed, between = np.mean(found, axis=0)
    # Standard errors of the means over simulations are 0.013 and 0.06.
    assert seed == pytest.approx(1, abs=0.04)
    assert between == pytest.approx(4, abs=0.2)


def test_a_universe_with_one_seed_has_no_part_in_the_components() -> None:
    pairs = np.array([[0.0, 2.0], [4.0, 6.0], [100.0, np.nan]])
    assert components(pairs).seed == 2
    assert components(pairs).n == 2


def test_a_forest_finds_what_decides_and_is_silent_where_nothing_does() -> None:
    random = np.random.default_rng(6)
    silent = 0
    for _ in range(12):
        columns = features(levels(random), {})
        noise = random.normal(size=N)
        silent += not forest(noise, columns, random, trees=10).importance
        found = forest(3 * columns["two=a"] + noise, columns, random, trees=20)
        assert found.explained > 0.2
        assert next(iter(found.importance)) == "two"
    assert silent >= 11  # false alarms are rarer than 5 %


def test_an_interaction_is_reported_only_if_it_replicates() -> None:
    random = np.random.default_rng(7)
    false_alarms = 0
    for _ in range(60):
        taken = levels(random, 128)
        noise = random.normal(size=128)
        additive = noise + 2 * np.array([level == "a" for level in taken["two"]])
        false_alarms += bool(interactions(additive, taken))
        both = [a == "a" and c == "c" for a, c in zip(taken["two"], taken["other"], strict=True)]
        found = interactions(noise + 8 * np.array(both), taken)
        assert [{pair.first[0], pair.second[0]} for pair in found] == [{"two", "other"}]
    assert false_alarms <= 1


def test_the_nearest_reading_is_the_one_with_the_printed_numbers() -> None:
    random = np.random.default_rng(8)
    values = random.normal(size=(20, 3)) * [1, 10, 100]
    printed = values[7].copy()
    values[3, :2] = np.nan  # too little is known of it
    found = distances(values, printed)
    assert np.nanargmin(found) == 7
    assert found[7] == 0
    assert np.isnan(found[3])
    assert np.nanmax(found) < 5  # no number outweighs the others for its unit
