"""Statistics against numbers computed by hand, tables of t, and SciPy's other routes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lft.report.statistics import (
    equivalence_p,
    holm,
    mean_interval,
    paired,
    unpaired,
)

# Exact arithmetic apart from rounding, of numbers near 1.
ROUNDING = 1e-12
T_975 = {1: 12.7062, 2: 4.30265}
"""Quantiles of Student's t from a printed table, by degrees of freedom."""


def test_an_interval_is_the_hand_computed_one() -> None:
    # Mean 2, standard deviation 1, n = 3: half width t(2) / sqrt(3).
    interval = mean_interval([1.0, 2.0, 3.0])
    half = T_975[2] / math.sqrt(3)
    assert interval.mean == 2
    # The printed table has six digits.
    assert interval.low == pytest.approx(2 - half, rel=1e-5)
    assert interval.high == pytest.approx(2 + half, rel=1e-5)
    assert interval.half_width == pytest.approx(half, rel=1e-5)
    assert (interval.n, interval.kind) == (3, "95 % t interval over 3 seeds")


def test_two_values_have_a_wide_interval() -> None:
    # Standard error |a - b| / 2.
    assert mean_interval([0.0, 2.0]).half_width == pytest.approx(T_975[1], rel=1e-5)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "no interval (n = 0)"),
        ([0.3], "no interval (n = 1)"),
        ([0.3, 0.3, 0.3], "no interval (3 equal seeds)"),
        ([0.1 + 0.2, 0.3], "no interval (2 equal seeds)"),
        ([0.0, 0.0], "no interval (2 equal seeds)"),
        ([0.3, math.nan, 0.5], "no interval (n = 3)"),
        ([0.3, math.inf], "no interval (n = 2)"),
    ],
)
def test_what_does_not_vary_has_no_interval(values: list[float], kind: str) -> None:
    interval = mean_interval(values)
    assert math.isnan(interval.low)
    assert math.isnan(interval.half_width)
    assert interval.kind == kind
    assert interval.n == len(values)


def test_a_paired_comparison_is_scipys() -> None:
    random = np.random.Generator(np.random.PCG64(1))
    a = random.standard_normal(20)
    b = a + 0.1 + 0.2 * random.standard_normal(20)
    found, oracle = paired(a, b), stats.ttest_rel(a, b)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-9)
    assert found.difference[1:3] == pytest.approx(oracle.confidence_interval(), rel=1e-9)
    assert found.effect == pytest.approx(oracle.statistic / math.sqrt(20), rel=1e-9)


def test_pairing_sees_what_unpaired_values_hide() -> None:
    a = np.array([1.0, 5.0, 9.0, 13.0])
    b = a - np.array([0.1, 0.2, 0.1, 0.2])
    assert paired(a, b).p < 0.02
    assert unpaired(a, b).p > 0.9


def test_an_unpaired_comparison_is_welchs() -> None:
    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0, 8.0])
    found = unpaired(a, b, "seeds")
    # Welch's formula: t = (2 - 5) / sqrt(1/3 + (20/3)/4), with its own degrees of freedom.
    first, second = 1 / 3, 20 / 12
    t = -3 / math.sqrt(first + second)
    df = (first + second) ** 2 / (first**2 / 2 + second**2 / 3)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-9)
    half = stats.t.ppf(0.975, df) * math.sqrt(first + second)
    assert found.difference[:3] == pytest.approx((-3, -3 - half, -3 + half), rel=1e-9)
    assert found.effect == pytest.approx(-3 / math.sqrt((1 + 20 / 3) / 2), rel=1e-9)
    assert found.difference.kind == "95 % Welch interval over 3 and 4 seeds"


@pytest.mark.parametrize(
    ("a", "b"),
    [([], [1.0, 2.0]), ([1.0], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0]), ([1.0, math.nan], [2.0, 3])],
)
def test_nothing_to_compare_gives_no_p_value(a: list[float], b: list[float]) -> None:
    found = unpaired(a, b)
    assert math.isnan(found.p)
    assert math.isnan(found.difference.low)
    assert found.difference.kind.startswith("no interval")


def test_one_pair_or_equal_differences_give_no_p_value() -> None:
    assert math.isnan(paired([1.0], [2.0]).p)
    assert math.isnan(paired([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]).p)
    assert paired([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]).difference.mean == 1


def test_equivalence_is_the_harder_of_two_one_sided_tests() -> None:
    values = np.array([0.01, 0.02, 0.03, 0.02])
    # Standard error 0.00816497 / 2, mean 0.02, margin 0.03: the upper side decides.
    t = (0.02 - 0.03) / (np.std(values, ddof=1) / 2)
    assert equivalence_p(values, 0.03) == pytest.approx(stats.t.cdf(t, 3), rel=1e-9)
    assert equivalence_p(-values, 0.03) == pytest.approx(stats.t.cdf(t, 3), rel=1e-9)
    assert equivalence_p(values, 0.01) > 0.9
    assert math.isnan(equivalence_p([0.01], 0.03))
    assert math.isnan(equivalence_p([0.01, 0.01], 0.03))


def test_holm_by_hand() -> None:
    # Sorted: 0.01·4, 0.02·3, 0.03·2 (kept at 0.06 by the step before), 0.2·1.
    assert holm([0.02, 0.2, 0.01, 0.03]) == pytest.approx([0.06, 0.2, 0.04, 0.06], abs=ROUNDING)
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert len(holm([])) == 0


def test_holm_does_not_count_what_was_not_tested() -> None:
    adjusted = holm([math.nan, 0.02, math.nan, 0.01])
    assert adjusted[[1, 3]] == pytest.approx([0.02, 0.02], abs=ROUNDING)
    assert np.isnan(adjusted[[0, 2]]).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    raw, adjusted = np.array(p), holm(p)
    assert (adjusted >= raw - ROUNDING).all()
    assert (adjusted <= np.minimum(1, len(p) * raw) + ROUNDING).all()
    order = np.argsort(raw, kind="stable")
    assert (np.diff(adjusted[order]) >= -ROUNDING).all()


def test_intervals_cover_as_often_as_they_say() -> None:
    random = np.random.Generator(np.random.PCG64(2))
    covered = [
        interval.low < 1 < interval.high
        for interval in (mean_interval(random.normal(1, 2, 3)) for _ in range(2000))
    ]
    # The standard error of 95 % in 2000 draws is 0.5 %; four of them.
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)
