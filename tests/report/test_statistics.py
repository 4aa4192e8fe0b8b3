"""Statistics against SciPy, closed forms and simulation."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.special import gamma

from lft.report import statistics as s

VALUES = [0.3, 1.1, 0.2, 0.9, 0.4, 0.8]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture(autouse=True)
def _no_warnings() -> None:
    """A warning of SciPy's would reach whoever runs lft compare."""
    warnings.simplefilter("error")


# ---------------------------------------------------------------- intervals


def test_mean_interval_is_students() -> None:
    found = s.mean_interval(VALUES)
    low, high = stats.t.interval(0.95, 5, np.mean(VALUES), stats.sem(VALUES))
    assert found[:4] == pytest.approx((np.mean(VALUES), low, high, 6))
    assert found.kind == "95 % t interval over 6 seeds"
    assert not found.cut
    narrow = s.mean_interval(VALUES, level=0.9)
    assert narrow.low == pytest.approx(stats.t.interval(0.9, 5, narrow.mean, stats.sem(VALUES))[0])
    assert narrow.kind == "90 % t interval over 6 seeds"


def test_an_interval_is_cut_where_the_mean_cannot_be() -> None:
    found = s.mean_interval([0.1, 0.9, 0.2], bounds=(-1, 1))
    assert found.high == 1
    assert found.cut
    assert found.low > -1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "no interval (n = 0)"),
        ([2.0], "no interval (n = 1)"),
        ([2.0, np.nan], "no interval (n = 2)"),
        ([0.1 + 0.2, 0.3, 0.3], "no interval (3 equal seeds)"),
    ],
)
def test_no_interval_without_spread(values: list[float], kind: str) -> None:
    found = s.mean_interval(values)
    assert found.kind == kind
    assert math.isnan(found.low)
    assert math.isnan(found.half_width)
    assert math.isnan(s.two_sided_p(values))


def test_a_prediction_interval_holds_the_next_seed_as_often_as_it_says(
    random: np.random.Generator,
) -> None:
    draws = random.standard_normal((4000, 6))
    held = []
    for row in draws:
        found = s.prediction_interval(row[:5])
        held.append(found.low <= row[5] <= found.high)
    # Standard error 0.0034.
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


# ---------------------------------------------------------------- tests


def test_p_values_are_scipys() -> None:
    for null in (0.0, 0.5, 2.0):
        assert s.two_sided_p(VALUES, null) == pytest.approx(stats.ttest_1samp(VALUES, null).pvalue)
        assert s.greater_p(VALUES, null) == pytest.approx(
            stats.ttest_1samp(VALUES, null, alternative="greater").pvalue
        )


def test_equal_values_are_above_a_floor_or_not() -> None:
    assert s.greater_p([0.5, 0.5, 0.5], 0.4) == 0
    assert s.greater_p([0.5, 0.5, 0.5], 0.5) == 1
    assert math.isnan(s.greater_p([0.5], 0.4))


def test_equivalence_is_the_90_percent_interval_within_the_margin() -> None:
    """TOST at 5 % and the 90 % interval are the same decision."""
    low, high = stats.t.interval(0.9, 5, np.mean(VALUES), stats.sem(VALUES))
    edge = max(abs(low), abs(high))
    assert s.equivalence_p(VALUES, edge * 1.001) < 0.05 < s.equivalence_p(VALUES, edge * 0.999)


def test_beyond_is_the_95_percent_interval_outside_the_margin() -> None:
    low, _ = stats.t.interval(0.95, 5, np.mean(VALUES), stats.sem(VALUES))
    assert s.beyond_p(VALUES, low * 0.999) < 0.05 < s.beyond_p(VALUES, low * 1.001)
    assert s.beyond_p([-v for v in VALUES], 0.1) == pytest.approx(s.beyond_p(VALUES, 0.1))


def test_holm_by_hand_and_with_an_unknown_p() -> None:
    assert s.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    # An unknown one counts: the smallest is multiplied by 4, not by 3.
    adjusted = s.holm([0.01, np.nan, 0.04, 0.03])
    assert adjusted[[0, 2, 3]] == pytest.approx([0.04, 0.09, 0.09])
    assert np.isnan(adjusted[1])


def test_holm_rejects_what_the_closed_testing_procedure_rejects(
    random: np.random.Generator,
) -> None:
    """Holm is the closure of Bonferroni: i is rejected if every set with i has a p < α / size."""
    for p in random.uniform(0, 0.1, (50, 4)):
        subsets = [[i for i in range(4) if mask >> i & 1] for mask in range(1, 16)]
        for i in range(4):
            rejected = all(
                min(p[j] for j in subset) < 0.05 / len(subset) for subset in subsets if i in subset
            )
            assert (s.holm(p)[i] < 0.05) == rejected


def test_unpaired_is_welchs(random: np.random.Generator) -> None:
    a, b = random.standard_normal(5), 2 * random.standard_normal(8) + 0.5
    found = s.unpaired(a, b, "seeds")
    test = stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(test.pvalue)
    assert found.difference[1:3] == pytest.approx(tuple(test.confidence_interval()))
    assert s.unpaired([1.0], b).difference.kind.startswith("no interval")
    edge = max(map(abs, test.confidence_interval(0.9)))
    assert s.unpaired_equivalence_p(a, b, edge * 1.001) < 0.05
    assert s.unpaired_equivalence_p(a, b, edge * 0.999) > 0.05


def test_the_reading_that_speaks_most_against() -> None:
    good, weak = [1.0, 1.1, 1.2], [0.1, 0.9, 0.5]
    assert s.against({"good": good, "weak": weak}) == "weak"
    assert s.against({"good": good, "bad": [-0.1, 0.05, -0.2], "weak": weak}) == "bad"


# ---------------------------------------------------------------- sizes


def test_hedges_g_is_unbiased(random: np.random.Generator) -> None:
    """Cohen's d of five values is 25 % too large; Hedges' correction takes that away."""
    draws = random.normal(1.0, 1.0, (20000, 5))
    found = np.mean([s.hedges_g(row) for row in draws[:4000]])
    d = (draws.mean(1) / draws.std(1, ddof=1)).mean()
    # sd of g is about 0.75, so the standard error is 0.012.
    assert found == pytest.approx(1.0, abs=0.04)
    assert d > 1.2
    assert s.hedges_g(draws[0]) / (draws[0].mean() / draws[0].std(ddof=1)) == pytest.approx(
        gamma(2) / (np.sqrt(2) * gamma(1.5))
    )
    assert math.isnan(s.hedges_g([1.0, 2.0]))


def test_improvement_is_mann_whitneys(random: np.random.Generator) -> None:
    a, b = random.integers(0, 5, (1, 12)).astype(float), random.integers(0, 5, (1, 9)).astype(float)
    u = stats.mannwhitneyu(a[0], b[0]).statistic
    assert s.improvement(a, b, paired=False) == pytest.approx(u / (12 * 9))
    paired = s.improvement([[1.0, 2.0, 3.0, 4.0]], [[0.0, 2.0, 4.0, 1.0]], paired=True)
    assert paired == (1 + 0.5 + 0 + 1) / 4
    infinite = [[np.inf, 3.0]]
    assert s.improvement(np.negative(infinite), [[-np.inf, -5.0]], paired=True) == 0.75


def test_the_bootstrap_sees_seeds_and_tasks(random: np.random.Generator) -> None:
    """Its variance is that of the seeds' means over n, plus that of tasks within seeds."""
    tasks = random.standard_normal((10, 40)) + random.standard_normal((10, 1))
    ends = s.hierarchical_bootstrap(
        lambda a, b: a - b, tasks, np.zeros_like(tasks), random, paired=True, draws=4000
    )
    within = tasks.var(1).mean() / 40
    spread = math.sqrt((tasks.mean(1).var() + within) / 10)
    # The quantiles of 4000 draws are known to about 4 %.
    assert (ends[1] - ends[0]) / (2 * 1.96) == pytest.approx(spread, rel=0.1)
    # Paired tasks are drawn together: a difference without spread has none.
    same = s.hierarchical_bootstrap(
        lambda a, b: a - b, tasks + 0.5, tasks, random, paired=True, draws=50
    )
    assert same == pytest.approx((0.5, 0.5))


# ---------------------------------------------------------------- power


def test_the_upper_limit_of_a_standard_deviation_covers(random: np.random.Generator) -> None:
    draws = random.standard_normal((4000, 10))
    assert np.mean([s.upper_sd(row) > 1 for row in draws]) == pytest.approx(0.8, abs=0.02)


def test_power_is_the_rate_at_which_effects_are_found(random: np.random.Generator) -> None:
    alpha = 0.05 / 42
    effect = s.detectable(1.0, 10, alpha)
    draws = random.standard_normal((20000, 10)) + effect
    found = (stats.ttest_1samp(draws, 0, axis=1).pvalue < alpha).mean()
    # Standard error 0.003.
    assert found == pytest.approx(0.8, abs=0.01)
    assert effect == pytest.approx(1.82, abs=0.01)


def test_seeds_needed_is_the_first_number_that_is_enough() -> None:
    needed = s.seeds_needed(0.1, 0.05, 0.05 / 42)
    assert needed is not None
    assert s.power(0.5, needed, 0.05 / 42) >= 0.8 > s.power(0.5, needed - 1, 0.05 / 42)
    # A textbook value: d = 0.5, α = 0.05 two-sided, power 0.8 takes 34 pairs (Cohen, 1988).
    assert s.seeds_needed(1.0, 0.5, 0.05) == 34
    assert s.seeds_needed(1.0, 100.0, 0.05) == 2
    assert s.seeds_needed(1e6, 0.01, 0.05) is None
    assert s.seeds_needed(np.nan, 0.1, 0.05) is None


# ---------------------------------------------------------------- first steps


def test_restricted_mean_is_the_area_below_kaplan_meiers_curve(
    random: np.random.Generator,
) -> None:
    first = random.integers(1, 60, 30).astype(float)
    horizon = 40
    first[first > horizon] = np.nan
    data = stats.CensoredData(
        uncensored=first[~np.isnan(first)], right=np.full(int(np.isnan(first).sum()), horizon)
    )
    curve = stats.ecdf(data).sf
    area = sum(float(curve.evaluate(step)) for step in range(horizon))
    assert s.restricted_mean(first, horizon) == pytest.approx(area)
    assert s.share_arrived(first) == np.isfinite(first).mean()


def test_the_largest_mean_is_found_no_more_often_than_it_says(
    random: np.random.Generator,
) -> None:
    """All true means are 0, and the columns correlated. A t test of the largest alone finds one in
    a fifth of the reports; one whose column other seeds choose does so, too."""
    noise = random.standard_normal((1500, 10, 20)) + random.standard_normal((1500, 10, 1))
    found = np.array([s.largest_mean_p(rows, random, draws=400)[1] < 0.05 for rows in noise])
    # Standard error 0.006.
    assert found.mean() == pytest.approx(0.05, abs=0.02)
    largest = np.array([s.greater_p(rows[:, rows.mean(0).argmax()]) < 0.05 for rows in noise])
    assert largest.mean() > 0.15


def test_the_largest_of_one_mean_is_a_t_test() -> None:
    values = np.array(VALUES)[:, None] - 0.3
    _, p = s.largest_mean_p(values, np.random.default_rng(0), draws=200_000)
    expected = s.greater_p(values[:, 0])
    # The binomial standard error of that many rotations.
    assert p == pytest.approx(expected, abs=4 * math.sqrt(expected / 200_000))
    column, p = s.largest_mean_p(
        np.stack([values[:, 0], -values[:, 0]], 1), np.random.default_rng(0)
    )
    assert column == 0
    assert s.largest_mean_p(-values, np.random.default_rng(0))[1] == 1
