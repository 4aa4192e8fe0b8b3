"""Verdicts on synthetic results whose truth is known, and the curated files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic import paper_level, report_profile

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.report.claims import (
    REFERENCE,
    CellClaim,
    Outcome,
    TheoryClaim,
    judge,
    load_claims,
    load_paper,
    write_claims,
)
from lft.results.records import CLAIM_COLUMNS, Measurement, read_rows, write_rows

Make = Callable[..., Path]

LFT = ("sine", "sine", "lft", "first")
L2O = ("sine", "sine", "l2o", "first")
MAML = ("sine", "sine", "maml", "first")


def claim(**changes: Any) -> CellClaim:
    """LFT has a lower MSE than L2O, changed at will."""
    values = {
        "id": "test",
        "claim": "A sentence",
        "place": "Sec. 0",
        "figure": "figure-4",
        "kind": "order",
        "experiment": "sine",
        "metric": "mse",
        "better": "lower",
        "a": LFT,
        "b": L2O,
        "step": 10,
    }
    return CellClaim.model_validate(values | changes)


def theory_claim(test: str) -> TheoryClaim:
    return TheoryClaim(
        id=test, claim="A statement", place="Sec. 0", figure="figure-gap", kind="theory", test=test
    )


def outcome(
    profile: Profile, results: Path, tested: CellClaim | TheoryClaim, *others: CellClaim
) -> Outcome:
    return judge(profile, results, [tested, *others])[0]


def by_task(results: Path, cell: tuple[str, ...], metric: str, step: int) -> pd.Series[float]:
    """A cell's values by (seed, task), read without the code under test."""
    rows = pd.read_csv(results / "measurements.csv")
    names = dict(zip(("trained_on", "tested_on", "method", "order"), cell, strict=True))
    wanted = {**names, "metric": metric, "step": step}
    rows = rows.loc[(rows[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    return rows.set_index(["seed", "task"])["value"]


def rewrite(path: Path, frame: pd.DataFrame) -> None:
    write_rows(path, list(frame), frame.itertuples(index=False))


# ---------------------------------------------------------------- verdicts


def test_the_papers_claims_on_results_like_the_papers(profile: Profile, results: Path) -> None:
    verdicts = {outcome.claim.id: outcome.verdict for outcome in judge(profile, results)}
    # In the synthetic results LFT beats MAML everywhere, so it does not match it.
    assert verdicts.pop("cnn-lft-maml") == "not reproduced"
    assert set(verdicts.values()) == {"reproduced"}
    assert len(verdicts) > 30


def test_the_papers_claims_on_opposite_results(profile: Profile, make: Make) -> None:
    opposite = make(
        profile,
        level=lambda run, tested_on: 1 - paper_level(run, tested_on),
        theory={
            "slack": 0.5,
            "exponent": -0.5,
            "sigma_effect": -1.0,
            "maml_vanishes": 0.0,
            "statement1_error": 1.0,
        },
    )
    verdicts = {outcome.claim.id: outcome.verdict for outcome in judge(profile, opposite)}
    # First- and zeroth-order LFT are equally bad.
    assert {name for name, verdict in verdicts.items() if verdict != "not reproduced"} == {
        "sine-zeroth-as-first"
    }


def test_numbers_are_those_of_scipy(profile: Profile, results: Path) -> None:
    other = claim(b=MAML)
    found = outcome(profile, results, claim(), other)
    a, b, c = (by_task(results, cell, "mse", 10) for cell in (LFT, L2O, MAML))
    first, second = stats.ttest_rel(a, b).pvalue, stats.ttest_rel(a, c).pvalue
    # CSV files keep seven digits.
    assert found.finding is not None
    assert found.finding.p == pytest.approx(first, rel=1e-3)
    holm = 2 * first if first < second else max(first, 2 * second)
    assert found.p == pytest.approx(holm, rel=1e-3)
    of_seeds = (a - b).groupby("seed").mean()
    low, high = stats.t.interval(0.95, 2, of_seeds.mean(), stats.sem(of_seeds))
    assert found.finding.interval[:3] == pytest.approx((of_seeds.mean(), low, high), rel=1e-6)
    assert found.finding.interval.kind == "95 % t interval over 3 seeds"
    effect = (a - b).mean() / (a - b).std()
    assert f"effect size {effect:.2f}" in found.finding.note
    assert found.finding.ours == f"{a.mean():.3g} vs {b.mean():.3g}"
    assert (found.n_seeds, found.reason) == (3, "")


def test_a_difference_that_seeds_explain_is_a_direction_only(sine: Profile, make: Make) -> None:
    lead = {0: 0.4, 1: 0.05, 2: 0.01}  # every seed on the claim's side, hugely unlike

    def level(run: Run, _: str) -> float:
        return 0.5 + (lead[run.seed] if run.method == "lft" else 0.0)

    found = outcome(sine, make(sine, level=level), claim())
    assert found.p < 0.05
    assert found.verdict == "direction only"


def test_a_difference_that_tasks_explain_is_a_direction_only(sine: Profile, make: Make) -> None:
    results = make(sine)
    rows = pd.read_csv(results / "measurements.csv")
    chosen = (rows["metric"] == "mse") & (rows["order"] == "first") & (rows["step"] == 10)
    first_task = chosen & (rows["method"] == "l2o") & (rows["task"] == "sine-0")
    rows.loc[chosen, "value"] = 1.0
    rows.loc[first_task, "value"] = rows.loc[first_task, "seed"].map({0: 2.0, 1: 2.1, 2: 2.2})
    rewrite(results / "measurements.csv", rows)
    # One task in twelve makes the whole difference, in every seed.
    weak = [claim(id=str(number)) for number in range(20)]
    found = outcome(sine, results, claim(), *weak)
    assert found.finding is not None
    assert found.finding.proven
    assert found.p > 0.05
    assert found.verdict == "direction only"


@pytest.mark.parametrize(
    ("lft", "l2o", "verdict"),
    [(0.6, 0.6, "reproduced"), (0.8, 0.6, "not reproduced"), (0.4, 0.6, "not reproduced")],
)
def test_equal(lft: float, l2o: float, verdict: str, sine: Profile, make: Make) -> None:
    results = make(sine, level=lambda run, _: {"lft": lft, "l2o": l2o}.get(run.method, 0.5))
    equal = claim(kind="equal", tolerance=0.2)
    assert outcome(sine, results, equal).verdict == verdict


def test_equality_within_a_margin_that_the_noise_exceeds_is_a_direction_only(
    sine: Profile, make: Make
) -> None:
    results = make(sine, level=lambda run, _: 0.6, noise=0.2)
    found = outcome(sine, results, claim(kind="equal", tolerance=0.25))
    assert found.finding is not None
    assert abs(found.finding.interval.mean) < 0.25
    assert found.verdict == "direction only"


def test_a_relative_tolerance_is_a_share_of_the_second_mean(
    profile: Profile, results: Path
) -> None:
    found = outcome(profile, results, claim(kind="equal", tolerance=0.5, relative=True))
    mean = by_task(results, L2O, "mse", 10).mean()
    assert found.finding is not None
    assert f"equal within ±{mean / 2:.3g}" in found.finding.note
    absolute = outcome(profile, results, claim(kind="equal", tolerance=0.5)).finding
    assert absolute is not None
    assert "equal within ±0.5" in absolute.note


@pytest.mark.parametrize(
    ("early", "last", "verdict"),
    [
        (0.3, 0.1, "reproduced"),
        (0.1, 0.3, "not reproduced"),
        (-0.1, -0.3, "not reproduced"),  # behind, though by less
    ],
)
def test_wider_needs_a_lead_that_shrinks(
    early: float, last: float, verdict: str, sine: Profile, make: Make
) -> None:
    results = make(sine)
    rows = pd.read_csv(results / "measurements.csv")
    for step, lead in ((1, early), (10, last)):
        of_lft = (rows["method"] == "lft") & (rows["metric"] == "mse") & (rows["step"] == step)
        noise = 1e-3 * step * (rows["task"].str.len() + rows["seed"])
        rows.loc[of_lft, "value"] = 2 - lead + noise[of_lft]
        of_l2o = (rows["method"] == "l2o") & (rows["metric"] == "mse") & (rows["step"] == step)
        rows.loc[of_l2o, "value"] = 2.0
    rewrite(results / "measurements.csv", rows)
    found = outcome(sine, results, claim(kind="wider", early=1))
    assert found.verdict == verdict
    assert found.finding is not None
    assert found.finding.interval.mean == pytest.approx(last - early, abs=0.1)
    assert "at step 1, " in found.finding.ours


def test_drop_compares_unlike_tasks_by_welch(profile: Profile, results: Path) -> None:
    a, b = ("mnist", "mnist", "lft", "first"), ("mnist", "cifar10", "lft", "first")
    drop = claim(kind="drop", experiment="attack", metric="asr", better="higher", a=a, b=b)
    found = outcome(profile, results, drop)
    values = [by_task(results, cell, "asr", 10) for cell in (a, b)]
    assert found.finding is not None
    oracle = stats.ttest_ind(*values, equal_var=False).pvalue
    assert found.finding.p == pytest.approx(oracle, rel=1e-3)
    assert found.verdict == "reproduced"


def test_a_later_step_than_the_profile_makes_is_its_last(profile: Profile, results: Path) -> None:
    found = outcome(profile, results, claim(step=100))
    assert found.finding is not None
    assert found.finding.note.startswith("step 10;")
    same = outcome(profile, results, claim(step=10)).finding
    assert same is not None
    assert found.finding.interval == same.interval


def test_tasks_without_full_asr_count_one_step_more_than_made(make: Make) -> None:
    attack = report_profile((0, 1, 2), "sine", "attack")
    never = make(attack, level=lambda run, _: 0.2 if run.method == "l2o" else 0.7)
    first = claim(
        experiment="attack",
        metric="first_full",
        a=("mnist", "mnist", "lft", "first"),
        b=("mnist", "mnist", "l2o", "first"),
        step=200,
    )
    found = outcome(attack, never, first)
    assert found.finding is not None
    assert found.finding.ours.endswith(" vs 11")
    assert found.verdict == "reproduced"


# ---------------------------------------------------------------- what is missing


def runs(profile: Profile, method: str, *seeds: int) -> list[Run]:
    return [
        run
        for run in profile.runs("sine")
        if (run.method, run.order) == (method, "first") and run.seed in (seeds or (0, 1, 2))
    ]


def test_a_missing_seed_is_inconclusive(sine: Profile, make: Make) -> None:
    found = outcome(sine, make(sine, missing=runs(sine, "l2o", 1)), claim())
    assert (found.verdict, found.reason, found.n_seeds) == ("inconclusive", "n = 2/3 seeds", 2)


def test_one_seed_is_inconclusive(make: Make) -> None:
    profile = report_profile((7,), "sine")
    results = make(profile)
    found = outcome(profile, results, claim())
    assert (found.verdict, found.reason) == ("inconclusive", "n = 1/1 seeds")
    assert outcome(profile, results, theory_claim("sigma")).reason == "n = 1/1 seeds"
    assert outcome(profile, results, theory_claim("statement1")).verdict == "reproduced"


def test_what_is_inconclusive_does_not_count_in_holm(sine: Profile, make: Make) -> None:
    results = make(sine, missing=runs(sine, "maml", 1))
    alone = outcome(sine, results, claim())
    beside = outcome(sine, results, claim(), claim(b=MAML))
    assert beside.p == alone.p


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"experiment": "speech"}, "experiment 'speech' is not in this profile"),
        (
            {"b": ("sine", "sine", "reptile", "first")},
            "reptile (sine to sine, first order) is not in this profile",
        ),
        (
            {"experiment": "attack", "metric": "asr", "a": ("mnist", "cifar10", "maml", "first")},
            "maml (mnist to cifar10, first order) is not applicable",
        ),
    ],
)
def test_what_the_profile_lacks_is_named(
    changes: dict[str, Any], reason: str, profile: Profile, results: Path
) -> None:
    found = outcome(profile, results, claim(**changes))
    assert (found.verdict, found.reason) == ("inconclusive", reason)


def test_an_unmeasured_method_is_named(sine: Profile, make: Make) -> None:
    found = outcome(sine, make(sine, missing=runs(sine, "l2o")), claim())
    assert found.reason == "l2o (sine to sine, first order) has not been measured"
    assert found.verdict == "inconclusive"


def test_no_theory_is_inconclusive(sine: Profile, make: Make) -> None:
    results = make(sine)
    header = (results / "theory.csv").read_text().splitlines()[0]
    (results / "theory.csv").write_text(header + "\n")
    found = outcome(sine, results, theory_claim("bound"))
    assert (found.verdict, found.reason) == ("inconclusive", "the theory has not been measured")


def test_equal_seeds_have_no_interval_and_prove_nothing(sine: Profile, make: Make) -> None:
    results = make(sine)
    rows = pd.read_csv(results / "measurements.csv")
    rows["value"] = rows["method"].map({"lft": 0.25}).fillna(0.5)
    rewrite(results / "measurements.csv", rows)
    found = outcome(sine, results, claim())
    assert found.finding is not None
    assert found.finding.interval.kind == "no interval (3 equal seeds)"
    assert np.isnan(found.p)
    assert found.verdict == "direction only"


# ---------------------------------------------------------------- divergence


def test_a_diverged_seed_counts_against_its_method(sine: Profile, make: Make) -> None:
    results = make(sine, diverged=runs(sine, "lft", 1))
    found = outcome(sine, results, claim())
    assert found.n_seeds == 3
    assert found.finding is not None
    assert "lft diverged in 1 of 3 seeds" in found.finding.note
    assert found.verdict == "direction only"
    rows = read_rows(results / "measurements.csv", Measurement._fields)
    sine = rows[(rows["experiment"] == "sine") & (rows["order"] == "first")]
    sine = sine[(sine["metric"] == "mse") & (sine["step"] == 10)]
    worst = sine.loc[sine["method"].isin(["lft", "l2o"]), "value"].max()
    l2o = sine.loc[(sine["method"] == "l2o") & (sine["seed"] == 1), "value"]
    leads = [
        sine.loc[(sine["method"] == "lft") & (sine["seed"] == seed), "value"].mean()
        - sine.loc[(sine["method"] == "l2o") & (sine["seed"] == seed), "value"].mean()
        for seed in (0, 2)
    ]
    expected = (sum(leads) + worst - l2o.mean()) / 3
    assert found.finding.interval.mean == pytest.approx(expected, rel=1e-9)


def test_a_method_that_always_diverged_has_lost(sine: Profile, make: Make) -> None:
    results = make(sine, diverged=runs(sine, "l2o"))
    assert outcome(sine, results, claim()).verdict in ("reproduced", "direction only")
    assert outcome(sine, results, claim(a=L2O, b=LFT)).verdict == "not reproduced"


def test_two_methods_that_always_diverged_are_inconclusive(sine: Profile, make: Make) -> None:
    results = make(sine, diverged=runs(sine, "l2o") + runs(sine, "lft"))
    found = outcome(sine, results, claim())
    assert (found.verdict, found.reason) == ("inconclusive", "every seed of both diverged")


def test_a_diverged_task_gets_the_worst_value(sine: Profile, make: Make) -> None:
    results = make(sine)
    text = (results / "measurements.csv").read_text()
    line = next(
        line
        for line in text.splitlines()
        if line.startswith("sine,sine,sine,lft,first,0,sine-3,10,mse,")
    )
    (results / "measurements.csv").write_text(text.replace(line, line.rpartition(",")[0] + ",nan"))
    found = outcome(sine, results, claim())
    a, b = (by_task(results, cell, "mse", 10) for cell in (LFT, L2O))
    worst = max(a.max(), b.max())
    expected = (a.fillna(worst) - b).mean()
    assert found.finding is not None
    assert found.finding.interval.mean == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- files


def test_claims_csv(profile: Profile, results: Path, tmp_path: Path) -> None:
    for name in ("measurements", "cells", "theory"):
        (tmp_path / f"{name}.csv").symlink_to(results / f"{name}.csv")
    (tmp_path / "runs").symlink_to(results / "runs")
    (tmp_path / "theory").symlink_to(results / "theory")
    write_claims(profile, tmp_path)
    written = read_rows(tmp_path / "claims.csv", CLAIM_COLUMNS)
    assert written["claim"].tolist() == [claim.id for claim in load_claims()]
    row = written.set_index("claim").loc["asr-lft-l2o"]
    assert (row["paper"], row["n_seeds"], row["verdict"]) == ("100 % vs 85 %", 3, "reproduced")
    assert row["low"] < row["difference"] < row["high"]
    # Synthetic runs took 2, 3 and 4 seconds; the claim rests on two methods.
    assert row["seconds"] == 18


def test_the_papers_zeroth_order_has_no_printed_numbers(profile: Profile, results: Path) -> None:
    swapped = claim(
        experiment="attack",
        metric="asr",
        a=("mnist", "mnist", "lft", "first"),
        b=("mnist", "mnist", "l2o", "zeroth"),
    )
    assert outcome(profile, results, swapped).paper == "100 % vs –"


def test_the_curated_claims_fit_the_paper_profile_and_the_figures() -> None:
    from lft.config import load_profile

    paper = load_profile(REFERENCE.parent / "config" / "paper.yaml")
    cells = {
        (run.experiment, run.trained_on, tested_on, run.method, run.order): refusal
        for run, tested_on, refusal in paper.cells()
    }
    figures = {"figure-2", "figure-a1", "figure-3", "figure-4", "table-2", "figure-gap"}
    for entry in load_claims():
        assert entry.figure in figures | {"figure-vanishing", "theory"}
        if isinstance(entry, CellClaim):
            for cell in (entry.a, entry.b):
                assert cells[(entry.experiment, *cell)] is None, entry.id


def test_the_papers_numbers_are_typed_and_the_misprint_is_kept() -> None:
    with (REFERENCE / "paper.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = {(r["trained_on"], r["tested_on"], r["method"], r["metric"]) for r in rows}
    assert len(keys) == len(rows) == 47
    for row in rows:
        printed = row["printed"].removesuffix(" %").split(" ± ")
        scale = 100 if row["printed"].endswith("%") else 1
        assert float(printed[0]) == pytest.approx(scale * float(row["value"]))
        spread = [scale * float(row["spread"])] if row["spread"] else []
        assert [float(text) for text in printed[1:]] == pytest.approx(spread)
    misprint = load_paper()["mnist+cifar10", "mnist+cifar10", "lft", "distortion"]
    assert (misprint["printed"], float(misprint["value"])) == ("0.89", 0.89)
    assert "0.089" in misprint["note"]
    assert [row["printed"] for row in rows if row["note"]] == ["0.89"]


@pytest.mark.parametrize(
    ("cell", "printed"),
    [
        (("mnist", "mnist", "maml", "distortion"), "0.14"),
        (("mnist", "mnist", "l2o", "first_full"), "122"),
        (("mnist", "mnist", "lft", "first_full"), "55"),
        (("mnist", "cifar10", "lft", "asr"), "25 %"),
        (("mnist+cifar10", "mnist", "l2o", "asr"), "77 %"),
        (("mnist+cifar10", "cifar10", "l2o", "distortion"), "0.069"),
        (("cifar10", "cifar10", "maml", "accuracy"), "66 ± 0.8 %"),
        (("cifar10", "mnist", "l2o", "accuracy"), "27 ± 2.1 %"),
        (("mnist+cifar10", "mnist+cifar10", "lft", "accuracy"), "72 ± 1.2 %"),
    ],
)
def test_numbers_are_the_printed_ones(cell: tuple[str, ...], printed: str) -> None:
    assert load_paper()[cell]["printed"] == printed


GOOD = """
- {id: one, claim: A, place: B, figure: theory, kind: theory, test: bound}
- {id: two, claim: A, place: B, figure: figure-4, kind: order, experiment: sine, metric: mse,
   better: lower, a: [sine, sine, lft, first], b: [sine, sine, l2o, first], step: 10}
"""

BAD = {
    "an unknown key": (("metric: mse", "metrik: mse"), "claim 2 (two): unknown key 'metrik'"),
    "a missing key": ((", metric: mse", ""), "claim 2 (two): key 'metric' is missing"),
    "a wrong kind": (("kind: order", "kind: ordr"), "claim 2 (two): kind: input should be 'order'"),
    "a wrong test": (("test: bound", "test: bond"), "unknown test 'bond'; did you mean 'bound'?"),
    "a wrong method": (("sine, lft", "sine, ltf"), "unknown method 'ltf'; did you mean 'lft'?"),
    "a wrong order": (("lft, first", "lft, second"), "a.3: input should be 'first' or 'zeroth'"),
    "no tolerance": (("kind: order", "kind: equal"), "key 'tolerance' belongs to kind 'equal'"),
    "early": (("step: 10", "step: 10, early: 5"), "key 'early' belongs to kind 'wider'"),
    "a second id": (("id: two", "id: one"), "claim 'one' is listed twice"),
    "a second key": (("step: 10", "step: 10, step: 20"), "key 'step' is given twice"),
    "no list": ((GOOD, "id: one"), "expected a list of claims"),
    "no YAML": (("[sine", "{sine"), "is not valid YAML"),
}


def test_a_good_file_of_claims(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(GOOD)
    assert [claim.id for claim in load_claims(path)] == ["one", "two"]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_of_claims_is_one_line(case: str, tmp_path: Path) -> None:
    (old, new), expected = BAD[case]
    path = tmp_path / "claims.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as error:
        load_claims(path)
    assert expected in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_row_is_named(sine: Profile, make: Make) -> None:
    results = make(sine)
    path = results / "measurements.csv"
    lines = path.read_text().splitlines(keepends=True)
    lines[41] = lines[41].rpartition(",")[0] + ",o.5\n"
    path.write_text("".join(lines))
    with pytest.raises(UsageError, match=r"measurements.csv line 42: value is 'o.5'"):
        judge(sine, results)


def test_theory_rows_of_a_missing_seed_are_inconclusive(sine: Profile, make: Make) -> None:
    results = make(sine)
    theory = pd.read_csv(results / "theory.csv")
    kept = theory[theory["seed"] != 1]
    rewrite(results / "theory.csv", kept)
    found = outcome(sine, results, theory_claim("decay_query"))
    assert (found.verdict, found.reason) == ("inconclusive", "n = 2/3 seeds")
