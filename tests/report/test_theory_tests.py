"""The theory's statements on synthetic rows whose truth is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import report_profile, theory_rows

from lft.report.statistics import Finding
from lft.report.theory_tests import (
    TESTS,
    bound_over_gap,
    decay_slopes,
    gap_points,
    gradient_missing,
    share_below_bound,
    sweep,
)
from lft.results.records import THEORY_COLUMNS


def rows(*experiments: str, seeds: tuple[int, ...] = (0, 1, 2), **truth: Any) -> pd.DataFrame:
    profile = report_profile(seeds)
    found = [
        row for name in experiments or ("sine",) for row in theory_rows(profile, name, **truth)
    ]
    return pd.DataFrame(found, columns=list(THEORY_COLUMNS))


def verdict(finding: Finding | None) -> str:
    assert finding is not None
    return "proven" if finding.proven else "holds" if finding.holds else "fails"


TRUTHS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "statement1": ({"statement1_error": 9e-10}, {"statement1_error": 2e-9}),
    "bound": ({"slack": 1.04}, {"slack": 0.96}),
    "decay_support": ({"exponent": 0.5}, {"exponent": -0.5}),
    "decay_query": ({"exponent": 0.5}, {"exponent": -0.5}),
    "sigma": ({"sigma_effect": 0.5}, {"sigma_effect": -1.0}),
    "vanishing": ({"maml_vanishes": 2.0}, {"maml_vanishes": 0.02}),
}


@pytest.mark.parametrize("test", TESTS)
def test_the_truth_is_found_in_both_directions(test: str) -> None:
    true, false = TRUTHS[test]
    assert verdict(TESTS[test](rows(**true))) == "proven"
    assert verdict(TESTS[test](rows(**false))) == "fails"


@pytest.mark.parametrize("test", TESTS)
def test_nothing_measured_finds_nothing(test: str) -> None:
    assert TESTS[test](rows().iloc[:0]) is None


@pytest.mark.parametrize("test", ["decay_support", "decay_query", "sigma", "vanishing"])
def test_one_seed_has_no_interval(test: str) -> None:
    finding = TESTS[test](rows(seeds=(0,)))
    assert verdict(finding) == "holds"
    assert finding is not None
    assert finding.interval.kind == "no interval (n = 1)"
    assert not finding.exact


@pytest.mark.parametrize("exponent", [0.25, 1.0])
def test_another_rate_of_decay_is_a_direction_only(exponent: float) -> None:
    assert verdict(TESTS["decay_support"](rows(exponent=exponent))) == "holds"


def test_one_point_above_the_bound_breaks_it() -> None:
    theory = rows()
    one = (theory["quantity"] == "gap") & (theory["support"] == 16) & (theory["steps"] == 2)
    theory.loc[one & (theory["stage"] == "initial"), "value"] *= 10
    finding = TESTS["bound"](theory)
    assert verdict(finding) == "fails"
    assert finding is not None
    assert "98% of points" in finding.ours


def test_the_experiment_against_the_statement_is_the_one_reported() -> None:
    theory = pd.concat([rows("sine"), rows("attack", sigma_effect=-1.0)])
    finding = TESTS["sigma"](theory)
    assert verdict(finding) == "fails"
    assert finding is not None
    assert finding.interval.mean < 0
    assert "sine" in finding.ours
    assert "attack" in finding.ours


def test_the_rate_furthest_from_the_theorems_is_the_one_reported() -> None:
    theory = pd.concat([rows("sine"), rows("attack", exponent=0.1)])
    finding = TESTS["decay_query"](theory)
    assert verdict(finding) == "holds"
    assert finding is not None
    # About 0.1 / 0.5; sine's is 1.
    assert finding.interval.mean == pytest.approx(0.2, abs=0.1)


def test_what_changes_both_gap_and_sigma_does_not_correlate_them() -> None:
    theory = rows()
    initial = theory["stage"] == "initial"
    theory.loc[initial & (theory["quantity"] == "gap"), "value"] *= 100
    theory.loc[initial & (theory["quantity"] == "sigma"), "value"] /= 100
    assert verdict(TESTS["sigma"](theory)) == "proven"


def test_the_slope_is_the_one_computed_by_hand() -> None:
    # Two sizes: the slope is a quotient of logarithms.
    values = {2: 3.0, 8: 2.0}
    theory = pd.DataFrame(
        [
            ("sine", "best", quantity, "lft", seed, 5, size, 8, "sine-0", value + seed)
            for size, gap in values.items()
            for seed in (0, 1)
            for quantity, value in (("gap", gap), ("bound", 9.0))
        ],
        columns=list(THEORY_COLUMNS),
    )
    finding = TESTS["decay_support"](theory)
    rate = math.log((2**-0.5 + 8**-0.5) / (8**-0.5 + 8**-0.5))
    slopes = [math.log(3 / 2) / rate, math.log(4 / 3) / rate]
    assert finding is not None
    # Rounding alone.
    assert finding.interval.mean == pytest.approx(sum(slopes) / 2, rel=1e-12)


def test_points_are_means_over_tasks_and_seeds() -> None:
    theory = rows()
    points = gap_points(theory)
    here = {"stage": "best", "steps": 2, "support": 4, "query": 2}
    point = points.loc[(points[list(here)] == pd.Series(here)).all(axis=1)]
    chosen = theory.loc[(theory[list(here)] == pd.Series(here)).all(axis=1)]
    gaps = [row["value"] for _, row in chosen.iterrows() if row["quantity"] == "gap"]
    assert len(gaps) == 3 * 4
    assert point["gap"].item() == pytest.approx(sum(gaps) / len(gaps), rel=1e-12)


def test_a_sweep_varies_one_size_at_the_largest_number_of_steps() -> None:
    points = gap_points(pd.concat([rows("sine"), rows("attack")]))
    swept = sweep(points, "support", "query")
    assert set(swept["steps"]) == {2}
    assert set(swept["query"]) == {2}
    best = swept[(swept["stage"] == "best") & (swept["experiment"] == "attack")]
    assert best["support"].tolist() == [2, 4, 8, 16]


@pytest.mark.parametrize("name", ["decay_support", "decay_query", "sigma"])
def test_a_collapsed_fine_tuner_is_left_out_without_a_logarithm_of_zero(name: str) -> None:
    theory = rows()
    gap = theory["quantity"] == "gap"
    theory.loc[gap & (theory["seed"] == 0), "value"] = 0.0
    with np.errstate(all="raise"):
        finding = TESTS[name](theory)
        theory.loc[gap, "value"] = 0.0
        assert TESTS[name](theory) is None
    assert finding is not None
    assert finding.interval.n == theory["seed"].nunique() - 1
    assert math.isfinite(finding.interval.mean)


def test_the_fitting_part_is_the_root_of_a_mean_square() -> None:
    theory = rows()
    square = theory["quantity"] == "fitting_square"
    theory.loc[square, "value"] = theory.loc[square, "seed"].map({0: 1.0, 1: 4.0, 2: 7.0})
    theory.loc[square & (theory["support"] == 16), "value"] *= -1
    found = gap_points(theory).set_index("support")["fitting_part"]
    assert found.loc[16].isna().all()
    assert set(found.drop(16)) == {2.0}


def test_no_gap_is_below_the_bound_and_has_no_factor() -> None:
    theory = rows()
    collapsed = theory["quantity"].isin(["gap", "bound"]) & (theory["support"] == 16)
    theory.loc[collapsed, "value"] = 0.0
    points = gap_points(theory)
    assert share_below_bound(points) == 1
    assert len(bound_over_gap(points)) == (points["support"] != 16).sum()
    assert verdict(TESTS["bound"](theory)) == "proven"
    theory.loc[theory["quantity"].isin(["gap", "bound"]), "value"] = 0.0
    assert TESTS["bound"](theory) is None


def test_points_without_a_finite_sigma_are_kept() -> None:
    theory = rows()
    points = gap_points(theory[~theory["quantity"].isin(["sigma", "fitting_square"])])
    assert len(points) == len(gap_points(theory))
    assert points[["sigma", "fitting_part"]].isna().all(axis=None)


def test_the_missing_gradient_by_hand() -> None:
    theory = rows()
    for quantity, per_seed in (("square", (1.0, 2.0, 3.0)), ("kept", (1.0, 1.0, 4.0))):
        chosen = theory["quantity"] == f"gradient_{quantity}"
        theory.loc[chosen, "value"] = theory.loc[chosen, "seed"].map(dict(enumerate(per_seed)))
    found = gradient_missing(theory)
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
        assert all(np.isnan(i.mean) for i in gradient_missing(theory).values())
    assert gradient_missing(rows().iloc[:0]) == {}


def test_slopes_of_every_stage_and_quantity() -> None:
    theory = pd.concat([rows("sine"), rows("attack", exponent=1.0)])
    stage, variance = theory["stage"] == "halfway", theory["quantity"] == "variance_part"
    fixed = theory["support"] ** -0.5 + theory["query"] ** -0.5
    theory.loc[stage & variance, "value"] = fixed[stage & variance] ** 3
    slopes = decay_slopes(theory, "variance_part", "query", "support")
    assert set(slopes) == {
        (name, at, seed)
        for name in ("sine", "attack")
        for at in ("initial", "halfway", "best")
        for seed in (0, 1, 2)
    }
    assert slopes["sine", "halfway", 1] == pytest.approx(3, rel=1e-9)  # rounding
    assert slopes["sine", "best", 1] == pytest.approx(1, abs=0.2)  # 2 % of noise in the gap
    # 1/|D_tr| + 1/|D_val| falls about twice as fast.
    assert 1.4 < slopes["attack", "initial", 1] < 2.1
