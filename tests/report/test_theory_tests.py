"""The theory's statements on synthetic rows whose truth is known."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic import report_profile, theory_rows

from lft.report import theory_numbers as numbers
from lft.report import theory_rates
from lft.report.theory_numbers import FITTED, FROZEN
from lft.report.theory_tests import SLOWER, STATEMENTS, TESTS, TheoryRow, readings
from lft.report.theory_tests import theory_rows as judged
from lft.results.schema import THEORY_COLUMNS

CHECKS = {name for name in STATEMENTS if name.endswith("_independent")} | {
    "statement1", "zeroth_derivatives", "bound",
}  # fmt: skip


def rows(*experiments: str, seeds: tuple[int, ...] = (0, 1, 2), **truth: Any) -> pd.DataFrame:
    return made(experiments or ("sine",), seeds, *truth.items()).copy()


@functools.cache
def made(
    experiments: tuple[str, ...], seeds: tuple[int, ...], *truth: tuple[str, float]
) -> pd.DataFrame:
    profile = report_profile(seeds)
    found = [row for name in experiments for row in theory_rows(profile, name, **dict(truth))]
    return pd.DataFrame(found, columns=list(THEORY_COLUMNS))


def one(claim: str, theory: pd.DataFrame) -> TheoryRow:
    (row,) = readings(claim, theory)
    return row


def holds(row: TheoryRow) -> bool:
    """No violation of a check; every seed on a claim's side, or near it where that is enough."""
    if row.kind == "check":
        return row.violations == 0
    return min(row.effects.values()) > (-row.margin if row.equal else 0.0)


def test_one_seed_checks_no_decay() -> None:
    slow = {"frozen_exponent": 0.3}  # violates the check where there are seeds for an interval
    assert one("decay_both_independent", rows(**slow)).violations == 1
    assert readings("decay_both_independent", rows(seeds=(0,), **slow)) == []


TRUTHS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "statement1": ({"statement1_error": 9e-10}, {"statement1_error": 2e-9}),
    "zeroth_derivatives": ({}, {"derivative_order": 2.0}),
    # The gap has 2 % of noise, some 4 % at the largest of a hundred.
    "bound": ({"slack": 1.1}, {"slack": 0.9}),
    "bound_independent": ({"slack": 0.9}, {"slack": 0.7}),
    "decay_both": ({"exponent": 0.5}, {"exponent": 0.3}),
    "decay_support": ({"exponent": 0.5}, {"exponent": -0.5}),
    "decay_query": ({"exponent": 0.5}, {"exponent": -0.5}),
    "decay_both_independent": ({"frozen_exponent": 0.5}, {"frozen_exponent": 0.3}),
    "decay_support_independent": ({"frozen_exponent": 0.5}, {"frozen_exponent": -0.5}),
    "decay_query_independent": ({"frozen_exponent": 0.5}, {"frozen_exponent": -0.5}),
    "sigma": ({"sigma_effect": 0.5}, {"sigma_effect": -1.0}),
    "jacobian": ({"jacobian_effect": 0.5}, {"jacobian_effect": -1.0}),
    "steps": ({"steps_effect": 0.5}, {"steps_effect": -0.5}),
    "vanishing": ({"maml_grows": -2.0}, {"lft_grows": -2.0}),
    "exploding": ({"maml_grows": 3.0}, {"lft_grows": 3.0}),
}


@pytest.mark.parametrize("claim", STATEMENTS)
def test_the_truth_is_found_in_both_directions(claim: str) -> None:
    true, false = TRUTHS[claim]
    assert holds(one(claim, rows(**true)))
    assert not holds(one(claim, rows(**false)))
    assert one(claim, rows(**true)).kind == ("check" if claim in CHECKS else "claim")


@pytest.mark.parametrize("claim", STATEMENTS)
def test_nothing_measured_says_nothing(claim: str) -> None:
    assert readings(claim, rows().iloc[:0]) == []
    assert TESTS[claim](rows().iloc[:0]) is None


@pytest.mark.parametrize("claim", sorted(set(STATEMENTS) - CHECKS))
def test_every_seed_has_an_estimate_of_its_own(claim: str) -> None:
    together = one(claim, rows(seeds=(0, 1, 2))).by_seed
    assert sorted(together) == [0, 1, 2]
    for seed, value in together.items():
        assert one(claim, rows(seeds=(seed,))).by_seed == {seed: pytest.approx(value, rel=1e-12)}


def test_the_experiment_that_speaks_most_against_a_statement_decides() -> None:
    found = TESTS["sigma"](pd.concat([rows("sine"), rows("attack", sigma_effect=-1.0)]))
    assert found is not None
    assert (found.readings, found.equal, found.holds) == (2, False, None)
    assert len(found.effects) == 3
    assert np.mean(found.effects) < 0
    assert "sine 0." in found.ours
    assert "attack -0." in found.ours


def test_not_slower_is_judged_within_the_margin() -> None:
    found = TESTS["decay_both"](rows())
    assert found is not None
    assert (found.equal, found.smallest) == (True, SLOWER)
    assert min(found.effects) > -SLOWER


def test_a_check_holds_where_nothing_violates_it() -> None:
    for slack, holds in ((1.1, True), (0.9, False)):
        found = TESTS["bound"](rows(slack=slack))
        assert found is not None
        assert (found.holds, found.effects) == (holds, ())


def test_every_experiment_has_a_row_of_its_own() -> None:
    found = judged(pd.concat([rows("sine"), rows("attack", sigma_effect=-1.0)]))
    sigma = {row.experiment: holds(row) for row in found if row.claim == "sigma"}
    assert sigma == {"sine": True, "attack": False}
    assert {row.claim for row in found if row.experiment == "sine"} == set(STATEMENTS)


def test_a_violation_is_counted_for_its_task_and_not_averaged_away() -> None:
    theory = rows()
    here = (theory["quantity"] == "gap") & (theory["task"] == "sine-1") & (theory["seed"] == 2)
    point = here & (theory["stage"] == "initial") & (theory["support"] == 16)
    theory.loc[point & (theory["query"] == 16), "value"] *= 5  # slack is 4
    row = one("bound", theory)
    assert (row.violations, row.n) == (1, (theory["quantity"] == "gap").sum())
    assert row.by_seed[2] == pytest.approx(5 / 4, rel=0.1)
    assert max(row.by_seed[0], row.by_seed[1]) < 1
    assert one("bound_independent", theory).violations == 0


def test_a_gap_above_a_bound_of_nothing_is_a_violation() -> None:
    theory = rows()
    none = theory["quantity"].isin(["sigma", "bound"]) & (theory["task"] == "sine-3")
    theory.loc[none, "value"] = 0.0
    row = one("bound", theory)
    assert row.violations == ((theory["quantity"] == "gap") & (theory["task"] == "sine-3")).sum()
    said = f"the bound is 0 at {row.violations} of {row.n}, where σ was measured as 0; "
    assert said + "0 violations of a bound above 0" in row.note
    here = (theory["quantity"] == "gap") & (theory["task"] == "sine-1")
    theory.loc[here, "value"] *= 100
    assert f"{here.sum()} violations of a bound above 0" in one("bound", theory).note
    decay = one("decay_both", theory)
    assert (decay.n, decay.left_out) == (3 * 3, {"bound is 0": 3})


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    theory = rows()
    gap = (theory["quantity"] == "gap") & (theory["stage"] == "best") & (theory["seed"] == 1)
    theory.loc[gap & (theory["task"] == "sine-0"), "value"] = math.inf
    decay = one("decay_both", theory)
    assert (decay.n, decay.left_out) == (4 + 3 + 4, {"not finite": 1})
    at_sizes = (gap & (theory["task"] == "sine-0")).sum()
    assert one("sigma", theory).left_out == {"not finite": at_sizes}
    assert one("bound", theory).left_out == {"not finite": at_sizes}
    norm = (theory["quantity"] == "meta_gradient_norm") & (theory["stage"] == "initial")
    last = theory.index[norm & (theory["steps"] == 2)][0]
    theory.loc[last, "value"] = math.nan
    assert one("vanishing", theory).left_out == {"0 or not finite": 1}


def test_a_task_without_a_gap_counts_as_none_in_the_slope() -> None:
    """A logarithm of it would have left it out."""
    theory = rows()
    none = theory["quantity"].isin(["gap"]) & (theory["task"] == "sine-0")
    largest = none & (theory["support"] == 16) & (theory["query"] == 16)
    theory.loc[largest, "value"] = 0.0
    # A quarter less at the largest of the sizes 2, 4, 8, 16, which stands 1.5 from their mean in
    # units of ln 2; the squares of such distances sum to 5.
    steeper = math.log(3 / 4) * 1.5 / 5 / math.log(2)
    for seed, excess in one("decay_both", theory).by_seed.items():
        assert excess - one("decay_both", rows()).by_seed[seed] == pytest.approx(steeper, abs=0.02)


def test_the_slope_is_the_one_computed_by_hand() -> None:
    # Two sizes of both sets: the slope is a quotient of logarithms. G σ is 9 / (1/√2 + 1/√2) at
    # the first and 9 / (1/√8 + 1/√8) at the second.
    theory = pd.DataFrame(
        [
            ("sine", "best", quantity, FITTED, seed, 5, size, size, "sine-0", value + seed)
            for size, gap in {2: 3.0, 8: 2.0}.items()
            for seed in (0, 1)
            for quantity, value in (("gap", gap), ("bound", 9.0))
        ],
        columns=list(THEORY_COLUMNS),
    )
    found = theory_rates.rates(theory, "gap", FITTED, "both")
    for seed, gaps in ((0, (3.0, 2.0)), (1, (4.0, 3.0))):
        rate = found["sine", "best", seed]
        decay = math.log(2 / 8**0.5) - math.log(2 / 2**0.5)
        assert rate.slope == pytest.approx((math.log(gaps[1] / gaps[0]) + decay) / math.log(4))
        assert rate.of_bound == pytest.approx(-0.5)
        assert rate.span == pytest.approx(math.log(4))


def noisy(exponents: list[float], random: np.random.Generator) -> pd.DataFrame:
    """A run with each exponent, called an experiment: ten seeds of 12 tasks, whose gaps are
    log-normal with a deviation of 0.6, as tasks of sine have it."""
    sizes = np.array([1, 4, 16])
    found = []
    for run, exponent in enumerate(exponents):
        for seed in range(10):
            gaps = sizes**exponent * np.exp(0.6 * random.standard_normal((12, 3)))
            for task, place in np.ndindex(gaps.shape):
                size = sizes[place]
                to = FITTED, seed, 16, size, size, f"sine-{task}"
                where = f"run-{run}", "best"
                found.append((*where, "gap", *to, gaps[task, place]))
                found.append((*where, "bound", *to, 20 * size**-0.5))
    return pd.DataFrame(found, columns=list(THEORY_COLUMNS))


def test_a_slope_is_recovered_with_its_false_alarm_rate() -> None:
    """A gap that falls as the bound does is called slower or faster in 5 % of runs by the two-sided
    t test over seeds, and one with half its exponent is called slower in nearly all."""
    n_runs = 60
    theory = noisy([-0.5] * n_runs + [-0.25] * 5, np.random.default_rng(5))
    excess = {
        row.experiment: np.array(list(row.by_seed.values()))
        for row in readings("decay_both", theory)
    }
    p = {run: stats.ttest_1samp(values, 0.0).pvalue for run, values in excess.items()}
    slower = [f"run-{run}" for run in range(n_runs, n_runs + 5)]
    as_bound = [run for run in excess if run not in slower]
    # Binomial: more than 9 of 60 at a rate of 5 % come once in a thousand; the seed is fixed.
    assert sum(p[run] < 0.05 for run in as_bound) <= 9
    # The log of a mean over 12 such tasks has a deviation of √((e^0.36 − 1) / 12) = 0.19, a seed's
    # slope that over ln 4 √2, 0.1, and the mean over 600 seeds 0.004; five of them.
    assert abs(np.mean([excess[run] for run in as_bound])) < 0.02
    assert all(p[run] < 0.05 and excess[run].mean() > 0 for run in slower)


def test_what_changes_both_gap_and_sigma_does_not_correlate_them() -> None:
    theory = rows(sigma_effect=1.0)
    sized = theory["support"] == 16
    theory.loc[sized & (theory["quantity"] == "gap"), "value"] *= 100
    theory.loc[sized & (theory["quantity"] == "sigma"), "value"] /= 100
    before = one("sigma", rows(sigma_effect=1.0)).by_seed
    assert one("sigma", theory).by_seed == pytest.approx(before)


def test_a_gap_of_nothing_has_no_correlation() -> None:
    theory = rows()
    gap = theory["quantity"] == "gap"
    theory.loc[gap & (theory["seed"] == 0), "value"] = 0.0
    with np.errstate(all="raise"):
        row = one("sigma", theory)
        assert sorted(row.by_seed) == [1, 2]
        assert set(row.left_out) == {"all equal"}
        assert math.isfinite(sum(row.by_seed.values()))
        theory.loc[gap, "value"] = 0.0
        assert readings("decay_both", theory) == readings("sigma", theory) == []


def test_the_exponent_of_k_is_found() -> None:
    for power in (0.5, -0.5):
        # 2 % of noise in 4 tasks a seed, over ln 2.
        expected = dict.fromkeys(range(3), pytest.approx(power, abs=0.06))
        assert one("steps", rows(steps_effect=power)).by_seed == expected


def test_a_task_without_a_gap_has_no_exponent() -> None:
    theory = rows()
    gap = (theory["quantity"] == "gap") & (theory["stage"] == "best") & (theory["seed"] == 1)
    theory.loc[gap & (theory["task"] == "sine-0"), "value"] = 0.0
    theory.loc[gap & (theory["task"] == "sine-1"), "value"] = math.nan
    row = one("steps", theory)
    assert (row.n, row.left_out) == (4 + 2 + 4, {"no gap": 1, "not finite": 1})
    assert sorted(row.by_seed) == [0, 1, 2]


def test_growing_as_k_is_not_exploding() -> None:
    """LFT's meta-gradient is a sum of K terms."""
    row = one("exploding", rows(lft_grows=1.0, maml_grows=0.0))
    assert max(map(abs, row.by_seed.values())) < 0.01  # 1 % of noise
    row = one("exploding", rows(lft_grows=3.0, maml_grows=0.0))
    # K goes from 1 to 2: two more powers of it.
    assert row.by_seed == pytest.approx(dict.fromkeys(range(3), -2 * math.log10(2)), abs=0.02)


def test_vanishing_of_one_task_is_not_made_up_for_by_another() -> None:
    theory = rows(lft_grows=0.0, maml_grows=0.0)
    lft = (theory["quantity"] == "meta_gradient_norm") & (theory["method"] == "lft")
    last = lft & (theory["steps"] == 2)
    theory.loc[last & (theory["task"] == "sine-0"), "value"] /= 1000
    theory.loc[last & (theory["task"] == "sine-1"), "value"] *= 1000
    # Three decades of one of two tasks.
    for claim, lead in (("vanishing", -1.5), ("exploding", -(3 - math.log10(2)) / 2)):
        assert one(claim, theory).by_seed == pytest.approx(dict.fromkeys(range(3), lead), abs=0.02)


def test_points_are_means_over_tasks_and_seeds() -> None:
    theory = rows()
    points = numbers.gap_points(theory)
    here = {"stage": "best", "steps": 2, "support": 4, "query": 16, "method": FITTED}
    point = points.loc[(points[list(here)] == pd.Series(here)).all(axis=1)]
    chosen = theory.loc[(theory[list(here)] == pd.Series(here)).all(axis=1)]
    gaps = [row["value"] for _, row in chosen.iterrows() if row["quantity"] == "gap"]
    assert len(gaps) == 3 * 4
    assert point["gap"].item() == pytest.approx(sum(gaps) / len(gaps), rel=1e-12)


@pytest.mark.parametrize(
    ("series", "sweep", "held"),
    [
        (FITTED, "support", ("query", 16)),
        (FITTED, "query", ("support", 2)),  # the fixed size
        (FROZEN, "support", ("query", 16)),
        (FROZEN, "query", ("support", 16)),
    ],
)
def test_a_sweep_varies_one_size_at_the_largest_number_of_steps(
    series: str, sweep: Any, held: tuple[str, int]
) -> None:
    points = numbers.gap_points(rows())
    best = points[(points["stage"] == "best") & (points["method"] == series)]
    found = theory_rates.swept(best, sweep)
    assert set(found["steps"]) == {2}
    assert set(found[held[0]]) == {held[1]}
    assert sorted(found[sweep]) == [2, 4, 8, 16]


def test_the_fitting_part_is_the_root_of_a_mean_square() -> None:
    theory = rows()
    square = theory["quantity"] == "fitting_square"
    theory.loc[square, "value"] = theory.loc[square, "seed"].map({0: 1.0, 1: 4.0, 2: 7.0})
    theory.loc[square & (theory["support"] == 16), "value"] *= -1
    points = numbers.gap_points(theory)
    found = points[points["method"] == FITTED].set_index("support")["fitting_part"]
    assert found.loc[16].isna().all()
    assert set(found.drop(16)) == {2.0}


def test_the_table_of_bounds_by_hand() -> None:
    for row in numbers.bound_table(rows(slack=2.0)):
        assert row.violations == 0
        # 2 % of noise, at most some 8 % of a few hundred values.
        assert row.factors == (pytest.approx(2, rel=0.1), pytest.approx(2, rel=0.1))
        assert row.over_variance == pytest.approx(1.25)
        assert row.points == 4 * 3 * 10  # tasks, seeds, points of the fitted series


def test_the_missing_gradient_by_hand() -> None:
    theory = rows()
    for quantity, per_seed in (("square", (1.0, 2.0, 3.0)), ("kept", (1.0, 1.0, 4.0))):
        chosen = theory["quantity"] == f"gradient_{quantity}"
        theory.loc[chosen, "value"] = theory.loc[chosen, "seed"].map(dict(enumerate(per_seed)))
    found = numbers.gradient_missing(theory)
    assert set(found) == {("sine", stage) for stage in ("initial", "halfway", "best")}
    # Four tasks a seed, with 0, 1/2 and −1/2: their squares sum to 2, over n − 1 = 11; t is that of
    # 11 degrees of freedom.
    for interval in found.values():
        assert interval.mean == pytest.approx(0, abs=1e-12)
        assert interval.half_width == pytest.approx(2.200985 * (2 / 11 / 12) ** 0.5, rel=1e-6)
        assert interval.kind == "95 % t interval over 12 tasks"


def test_without_a_gradient_none_can_be_missing() -> None:
    theory = rows()
    theory.loc[theory["quantity"].str.startswith("gradient_"), "value"] = 0.0
    with np.errstate(all="raise"):
        assert all(np.isnan(i.mean) for i in numbers.gradient_missing(theory).values())
    assert numbers.gradient_missing(rows().iloc[:0]) == {}
