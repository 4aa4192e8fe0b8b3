"""docs/explanation/statistics.md: how often the protocol errs, by simulation of its own tests."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from lft.config import load_profile
from lft.report import statistics as s
from lft.report.claims import load_claims
from lft.report.claims.agreement import agreement
from lft.report.claims.decision import Evidence, claim_p, decide_all, no_difference_p
from lft.report.theory_tests import readings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/explanation/statistics.md").read_text(encoding="utf-8")
SAID = " ".join(PAGE.split())
SEEDS, CLAIMS, REPORTS = 10, 48, 8000
Law = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]


def two_points(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """−1, and 9 in one seed of ten, with noise of a fifth of their variance."""
    far = np.where(random.random(shape) < 0.1, 9.0, -1.0)
    return far + 1.5 * random.standard_normal(shape)


LAWS: dict[str, Law] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "the difference of two exponential numbers": (
        lambda random, shape: random.exponential(size=shape) - random.exponential(size=shape)
    ),
    "exponential": lambda random, shape: random.exponential(size=shape) - 1,
    "far out in one seed of ten, else near one value": two_points,
}
"""Leads of one seed whose mean is 0."""


def p_values(leads: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(stats.ttest_1samp(leads, 0, axis=-1).pvalue)


def word(leads: NDArray[np.float64], n_claims: int, margin: float = 0.05) -> str | None:
    """The verdict on a claim beside n_claims − 1 that were not measured."""
    p, same = claim_p("better", leads, margin), no_difference_p("better", leads, margin)
    found = Evidence("", "better", leads, margin, p, same, False, len(leads))
    ruling = decide_all([found, *[None] * (n_claims - 1)], [True] * n_claims)[0]
    return ruling and ruling.word


@pytest.mark.parametrize("law", LAWS)
def test_skewed_seeds_mislead_as_often_as_the_page_says(law: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {law} |"))
    missed, false = (int(text) / 100 for text in re.findall(r"(\d+) %", row))
    leads = LAWS[law](np.random.default_rng(31), (REPORTS, CLAIMS, SEEDS))
    p = p_values(leads)
    # Whole per cents, and three standard errors: 0.0004 and 0.0056.
    assert (p < 0.05).mean() == pytest.approx(missed, abs=0.005 + 0.001)
    assert (p.min(1) * CLAIMS < 0.05).mean() == pytest.approx(false, abs=0.005 + 0.017)


def test_the_page_speaks_of_as_many_claims_as_are_registered() -> None:
    assert sum(claim.kind != "check" for claim in load_claims().claims) == CLAIMS


def test_false_verdicts_on_skewed_seeds_look_sound_to_other_tests() -> None:
    random = np.random.default_rng(32)
    leads = LAWS["exponential"](random, (60_000, SEEDS))
    false = leads[p_values(leads) * CLAIMS < 0.05][:300]
    assert len(false) == 300
    assert "agree with the false verdict in all of 300 false verdicts" in SAID
    assert {word(row, CLAIMS) for row in false[:20]} <= {"contradicted", "negligible"}
    assert (false.mean(1) < 0).mean() > 0.99  # away from the far seeds
    signs = np.array(list(itertools.product([1, -1], repeat=SEEDS)))
    flipped = np.abs(false @ signs.T) >= np.abs(false.sum(1))[:, None] - 1e-12
    assert (flipped.mean(1) < 0.05).all()
    for row in false:
        zeros = np.zeros((SEEDS, 1))
        low, high = s.hierarchical_bootstrap(
            np.subtract, row[:, None], zeros, random, paired=False, draws=400
        )
        assert high < 0 or low > 0
    least = 2 / len(signs)
    assert f"its p is at least {least:.3f}, which times {CLAIMS} is above 5 %" in SAID
    assert least * CLAIMS > 0.05


@pytest.mark.parametrize(
    ("law", "said"),
    [("normal", "2.5 of 48 are expected then"), ("exponential", "and 18 if all were exponential")],
)
def test_skewness_is_seen_in_the_whole_report(law: str, said: str) -> None:
    assert said in SAID
    random = np.random.default_rng(33)
    found = np.array([s.skewness_p(row) < 0.05 for row in LAWS[law](random, (5000, SEEDS))])
    expected = float(re.findall(r"\d+\.?\d*", said)[0])
    # Three standard errors of 5000 claims: 0.45 and 1 of 48.
    assert CLAIMS * found.mean() == pytest.approx(expected, abs=0.45 if law == "normal" else 1)


def test_skewness_is_scipys_and_needs_eight_seeds() -> None:
    values = np.arange(8.0) ** 3
    assert s.skewness_p(values) == stats.skewtest(values).pvalue
    assert np.isnan(s.skewness_p(values[:7]))
    assert np.isnan(s.skewness_p(np.ones(9)))


def test_claims_that_share_trainings_do_not_raise_false_alarms() -> None:
    random = np.random.default_rng(34)
    shared = random.standard_normal((REPORTS, 1, SEEDS))
    leads = 0.9**0.5 * shared + 0.1**0.5 * random.standard_normal((REPORTS, CLAIMS, SEEDS))
    rate = (p_values(leads).min(1) * CLAIMS < 0.05).mean()
    said = re.search(r"correlated by 0.9 between claims a false verdict occurs in (\d+) %", SAID)
    assert said is not None
    assert rate == pytest.approx(int(said[1]) / 100, abs=0.005)  # standard error 0.001


def test_no_difference_is_rarely_said_of_effects_that_matter() -> None:
    """All leads have means at the margin, and so little spread that a test could say it."""
    random = np.random.default_rng(35)
    margin, spread = 0.05, 0.02
    leads = margin + spread * random.standard_normal((REPORTS, CLAIMS, SEEDS))
    t = (margin - leads.mean(2)) / (leads.std(2, ddof=1) / SEEDS**0.5)
    same = stats.t.sf(t, SEEDS - 1)  # the other of the two one-sided tests never fails here
    suspects = same.min(1) * CLAIMS < 0.05
    said = re.search(r'"no difference" when all effects .*? \((\d+) % in simulation\)', SAID)
    assert said is not None
    assert suspects.mean() == pytest.approx(int(said[1]) / 100, abs=0.012)  # 0.0024
    row = leads[suspects][0, same[suspects][0].argmin()]
    assert no_difference_p("better", row, margin) * CLAIMS < 0.05


def test_choosing_the_reading_that_speaks_most_against_is_paid_for() -> None:
    """Three experiments without any effect, judged as a statement of the theory is."""
    random = np.random.default_rng(36)
    false = []
    for leads in random.standard_normal((4000, 3, SEEDS)):
        effects = dict(zip("abc", leads, strict=True))
        chosen = effects[s.against(effects)]
        p = claim_p("better", chosen, 0.05)
        false.append((3 * p if chosen.mean() < 0 else p) < 0.05)
    said = re.search(r"in at most 5 % of cases \((\d+) % in simulation\)", SAID)
    assert said is not None
    assert np.mean(false) == pytest.approx(int(said[1]) / 100, abs=0.005 + 0.007)  # 0.0025


def test_four_numbers_that_differ_may_be_chance() -> None:
    table = pd.read_csv(ROOT / "results/reference/tables/agreement.csv")
    by_chance = stats.binom(len(table), 0.05)
    assert (
        f"Of {len(table)} numbers that agree, up to {by_chance.mean():.1f} would be called "
        f"different by chance, and four or more in up to {by_chance.sf(3):.0%} of cases"
    ).replace("%", " %") in SAID
    assert (table["verdict"] == "differs").sum() == 4
    (left,) = (
        row for row in agreement(load_profile("reference"), ROOT / "results/reference")
        if row.p < 0.05
    )  # fmt: skip
    assert left.verdict == "differs"
    assert f"it is below 5 % for one of the four (p = {left.p:.3f})" in SAID


def test_the_kept_run_violates_no_bound_above_0() -> None:
    theory = pd.read_csv(ROOT / "results/reference/theory.csv")
    for claim in ("bound", "bound_independent"):
        (row,) = (row for row in readings(claim, theory) if row.violations)
        said = f"the bound is 0 at {row.violations} of {row.n}, where σ was measured as 0; "
        assert said + "0 violations of a bound above 0" in row.note


def test_p_of_a_printed_number_is_below_5_percent_outside_the_prediction_interval() -> None:
    values = np.array([0.2, 0.5, 0.3, 0.7])
    interval = s.prediction_interval(values)
    assert s.prediction_p(values, interval.high) == pytest.approx(0.05)
    assert s.prediction_p(values, interval.low) == pytest.approx(0.05)
    # A new value beside a sample of n is Student's two-sample test with a sample of one.
    assert s.prediction_p(values, 0.9) == pytest.approx(stats.ttest_ind([0.9], values).pvalue)
    assert np.isnan(s.prediction_p(np.ones(3), 1.0))
