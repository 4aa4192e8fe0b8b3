"""Verdicts on synthetic results whose truth is known, and the curated files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic import TRAINED, paper_level, report_profile, write_history

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.report.claims import (
    REFERENCE,
    CellClaim,
    Claims,
    TheoryClaim,
    Verdict,
    Verdicts,
    effects_over_steps,
    judge,
    load_claims,
    load_paper,
    model,
    read_verdicts,
    write_claims,
)
from lft.report.claims.decision import Evidence, claim_p, decide_all, no_difference_p, wider
from lft.results import registered
from lft.storage.csv import write_rows

Make = Callable[..., Path]

LFT = ("sine", "sine", "lft", "first")
L2O = ("sine", "sine", "l2o", "first")
MAML = ("sine", "sine", "maml", "first")
SEEDS = (0, 1, 2, 3, 4)


def claim(**changes: Any) -> CellClaim:
    """LFT has a lower MSE than L2O, changed at will."""
    values = {
        "id": "test",
        "claim": "A sentence",
        "place": "Sec. 0",
        "hypothesis": "h",
        "figure": "figure-4",
        "kind": "better",
        "experiment": "sine",
        "metric": "mse",
        "a": LFT,
        "b": L2O,
        "step": 10,
    }
    return CellClaim.model_validate(values | changes)


def attack(metric: str = "asr", **changes: Any) -> CellClaim:
    a, b = (("mnist", "mnist", method, "first") for method in ("lft", "l2o"))
    return claim(**{"experiment": "attack", "metric": metric, "a": a, "b": b} | changes)


def theory_claim(test: str, kind: str = "theory") -> TheoryClaim:
    return TheoryClaim.model_validate(
        {
            "id": test, "claim": "A statement", "place": "Sec. 0", "hypothesis": "h",
            "figure": "figure-gap", "kind": kind, "test": test,
        }
    )  # fmt: skip


def verdicts(profile: Profile, results: Path, *tested: CellClaim | TheoryClaim) -> list[Verdict]:
    """Of the claims given, told apart by their places."""
    named = tuple(one.model_copy(update={"id": f"{n}"}) for n, one in enumerate(tested))
    claims = load_claims().model_copy(update={"claims": named, "hypotheses": {"h": "H"}})
    return judge(profile, results, claims)


def verdict(profile: Profile, results: Path, *tested: CellClaim | TheoryClaim) -> Verdict:
    return verdicts(profile, results, *tested)[0]


def by_seed(results: Path, cell: tuple[str, ...], metric: str, step: int) -> pd.Series[float]:
    """A cell's means over test tasks, read without the code under test."""
    rows = pd.read_csv(results / "measurements.csv")
    names = dict(zip(("trained_on", "tested_on", "method", "order"), cell, strict=True))
    wanted = {**names, "metric": metric, "step": step}
    rows = rows.loc[(rows[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    return rows.groupby("seed")["value"].mean()


def rewrite(path: Path, frame: pd.DataFrame) -> None:
    write_rows(path, list(frame), frame.itertuples(index=False))


def evidence(values: Any, kind: str = "better", margin: float = 0.05, **changes: Any) -> Evidence:
    effects = np.array(values, dtype=float)
    p, same = claim_p(kind, effects, margin), no_difference_p(kind, effects, margin)
    fields = {"vacuous": False, "n_planned": len(effects), **changes}
    return Evidence("", kind, effects, margin, p, same, **fields)


def word(found: Evidence) -> str | None:
    """The verdict of a claim that stands alone."""
    (ruling,) = decide_all([found], [True])
    return ruling and ruling.word


# ---------------------------------------------------------------- the order of verdicts


NOISE = np.array([-0.012, 0.004, 0.009, -0.006, 0.001, 0.004])  # its mean is 0


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (evidence(0.2 + NOISE), "supported"),
        (evidence(-0.2 + NOISE), "contradicted"),
        (evidence(0.02 + NOISE), "negligible"),
        (evidence(0.002 + NOISE), "no difference"),
        (evidence(0.02 + 5 * NOISE), "inconclusive"),
        (evidence(0.2 + NOISE, vacuous=True), "vacuous"),
        (evidence(0.2 + NOISE, n_planned=7), "inconclusive"),
        (evidence(-0.02 + NOISE, kind="not-worse"), "supported"),
        (evidence(-0.2 + NOISE, kind="not-worse"), "contradicted"),
        (evidence(-0.05 + NOISE, kind="not-worse"), "inconclusive"),
        (evidence(0.02 + NOISE, kind="equivalent"), "supported"),
        (evidence(0.2 + NOISE, kind="equivalent"), "contradicted"),
        (evidence(-0.2 + NOISE, kind="equivalent"), "contradicted"),
        (evidence(0.05 + NOISE, kind="equivalent"), "inconclusive"),
        (evidence([0.2] * 6), "inconclusive"),  # equal seeds have no spread to judge by
    ],
)
def test_verdicts_in_their_order(found: Evidence, expected: str) -> None:
    assert word(found) == expected


def test_a_missing_claim_still_counts_in_holms_family() -> None:
    found = evidence(0.2 + 2.5 * NOISE)
    alone = decide_all([found], [True])[0]
    beside = decide_all([found, None, None], [True, True, True])[0]
    uncounted = decide_all([found, None, None], [True, False, False])[0]
    assert alone is not None
    assert beside is not None
    assert uncounted is not None
    assert beside.p == pytest.approx(3 * alone.p)
    assert uncounted.p == alone.p


def test_false_alarms_anywhere_in_a_report_are_as_rare_as_promised() -> None:
    """42 true nulls, ten seeds of 20 tasks, 80 % of a seed's mean's variance between seeds."""
    random = np.random.default_rng(17)
    n_reports, n_claims, n_seeds = 12_000, 42, 10
    between = np.sqrt(0.8) * random.standard_normal((n_reports, n_claims, n_seeds))
    within = np.sqrt(0.2) * random.standard_normal((n_reports, n_claims, n_seeds))
    effects = 0.1 * (between + within)  # a mean of tasks: of whose noise only the mean matters
    p = stats.ttest_1samp(effects, 0, axis=2).pvalue
    suspects = p.min(1) * n_claims < 0.05  # Holm's first step; all others have no adjusted p below
    # Standard error 0.002.
    assert suspects.mean() <= 0.05 + 3 * 0.002
    # The code that judges says the same, in both kinds of report.
    for report in [*np.flatnonzero(suspects)[:20], *np.flatnonzero(~suspects)[:20]]:
        rulings = decide_all([evidence(row) for row in effects[report]], [True] * n_claims)
        words = {ruling.word for ruling in rulings if ruling}
        assert bool(words & {"supported", "contradicted"}) == suspects[report]


def test_pooling_seeds_and_tasks_would_raise_false_alarms() -> None:
    """Why the seed is the unit: the same nulls, tested over (seed, task) pairs."""
    random = np.random.default_rng(18)
    tasks = np.sqrt(0.8) * random.standard_normal((300, 10, 1)) + np.sqrt(
        0.2 * 20
    ) * random.standard_normal((300, 10, 20))
    pooled = stats.ttest_1samp(tasks.reshape(300, -1), 0, axis=1).pvalue
    assert (pooled < 0.05).mean() > 0.3


def test_a_planted_effect_is_found_at_the_rate_that_the_power_calculation_says() -> None:
    """The positive control: an effect that 42 claims and ten seeds find in 80 % of reports."""
    from lft.report.statistics import detectable

    random = np.random.default_rng(19)
    size = detectable(0.1, 10, 0.05 / 42)
    effects = size + 0.1 * random.standard_normal((400, 10))
    nothing = [evidence(0.1 * random.standard_normal(10)) for _ in range(41)]
    found = [
        decide_all([evidence(row), *nothing], [True] * 42)[0].word == "supported"  # type: ignore[union-attr]
        for row in effects
    ]
    # Standard error 0.02.
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(
    ("early", "last", "expected"),
    [
        (0.30, 0.10, "supported"),
        (0.10, 0.30, "contradicted"),
        (-0.10, -0.30, "inconclusive"),  # behind by less is no lead
        (0.105, 0.10, "no difference"),
    ],
)
def test_wider_needs_a_lead_that_shrinks(early: float, last: float, expected: str) -> None:
    random = np.random.default_rng(21)
    leads = np.array([early, last / 2, last]) + 0.005 * random.standard_normal((6, 3))
    if expected in ("contradicted", "no difference"):
        leads[:, 1] = leads[:, 0]
    _, effects, p, same = wider(leads, 0.02, random)
    assert word(Evidence("", "wider", effects, 0.02, p, same, False, 6)) == expected


def test_wider_pays_for_the_choice_of_the_early_lead() -> None:
    """No true lead at any of 19 independent early steps, far behind at the last: 5 % at most."""
    random = np.random.default_rng(22)
    p = []
    for _ in range(400):
        leads = np.append(np.zeros(19), -3.0) + random.standard_normal((10, 20))
        _, effects, of_claim, _ = wider(leads, 0.02, random)
        p.append(of_claim if effects.mean() > 0 else 1.0)
    # Two-sided, so 2.5 % on the claim's side; three standard errors of 0.011. A t test at the
    # chosen step is above 10 %.
    assert np.mean(np.array(p) < 0.05) <= 0.05 + 0.011


@pytest.mark.parametrize("constant", [0, 1, 2])
@pytest.mark.parametrize("early", [0.1, 0.3])
def test_wider_is_unknown_if_the_excess_at_a_step_has_no_spread(
    early: float, constant: int
) -> None:
    """The smaller leads of all early steps must be tested, wherever the step without a test is."""
    random = np.random.default_rng(23)
    leads = np.append(np.full(3, early), 0.2) + 0.005 * random.standard_normal((6, 4))
    leads[:, constant] = leads[:, -1] - 0.01
    _, _, p, same = wider(leads, 0.02, random)
    assert np.isnan(same)
    assert np.isnan(p) == (early < 0.2)  # the rotation test of a larger lead needs no spread


def test_the_clearest_excess_need_not_be_the_largest_lead(make: Make) -> None:
    """Step 1 has the largest lead, but seeds differ there; step 2 exceeds the last in all."""
    profile = report_profile(SEEDS, "sine", "classification")
    results = make(profile)
    rows = pd.read_csv(results / "measurements.csv")
    accuracy = rows["metric"] == "accuracy"
    steps = sorted(rows.loc[accuracy, "step"].unique())
    rows.loc[accuracy, "value"] = 0.6
    of_lft = accuracy & (rows["method"] == "lft")
    noise = np.array([-0.012, 0.004, 0.009, -0.006, 0.005])
    for step, lead, spread in ((steps[1], 0.30, 20.0), (steps[2], 0.20, 1.0), (steps[-1], 0.1, 0)):
        here = of_lft & (rows["step"] == step)
        rows.loc[here, "value"] += lead + spread * noise[rows.loc[here, "seed"]]
    rewrite(results / "measurements.csv", rows)
    a, b = (("cifar10", "cifar10", method, "first") for method in ("lft", "l2o"))
    tested = claim(
        kind="wider", experiment="classification", metric="accuracy", a=a, b=b, step=int(steps[-1])
    )
    found = verdict(profile, results, tested)
    assert f"clearest excess over the last lead, at step {steps[2]}: a lead of 20.0" in found.reason
    assert found.effect == pytest.approx(0.10)
    assert found.interval == "95 % t interval over 5 seeds at the selected step"


def test_claims_are_parsed_once_until_their_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "claims.yaml"
    path.write_bytes((REFERENCE / "claims.yaml").read_bytes())
    read: list[Path] = []
    for module in (model, registered):
        original = module.read_yaml
        spy = lambda path, what, original=original: (read.append(path), original(path, what))[1]  # noqa: E731
        monkeypatch.setattr(module, "read_yaml", spy)
    digest = registered.registered_digest(path)
    for _ in range(3):
        assert load_claims(path).version == 1
        assert registered.registered_digest(path) == digest
    assert len(read) == 2
    path.write_text(path.read_text().replace("version: 1", "version: 23"))
    assert load_claims(path).version == 23
    assert registered.registered_digest(path) != digest
    path.unlink()
    with pytest.raises(UsageError):
        load_claims(path)


# ---------------------------------------------------------------- on results


def test_the_papers_claims_on_results_like_the_papers(tmp_path: Path, make: Make) -> None:
    profile = report_profile(SEEDS)
    found = {row.claim: row for row in judge(profile, make(profile))}
    words = {name: row.verdict or row.check for name, row in found.items()}
    # No synthetic attack succeeds on every task.
    assert {name for name, w in words.items() if w == "vacuous"} == {
        name for name in words if "steps-l" in name
    }
    # Leads are about as large at all steps, and slopes those of the bound.
    close = {n for n, w in words.items() if w in ("negligible", "no difference", "inconclusive")}
    assert close <= {
        "few-steps-mnist", "few-steps-cifar10", "sine-zeroth-as-first", "theorem-1-decay-support",
        "theorem-1-decay-query", "theorem-1-jacobian", "exploding-gradients",
    }  # fmt: skip
    assert "contradicted" not in words.values()
    assert sum(w == "supported" for w in words.values()) > 30


def test_the_papers_claims_on_opposite_results(make: Make) -> None:
    profile = report_profile(SEEDS)
    opposite = make(profile, level=lambda run, tested_on: 1 - paper_level(run, tested_on))
    words = {row.claim: row.verdict for row in judge(profile, opposite)}
    for name in ("asr-lft-l2o", "distortion-lft-l2o", "cnn-lft-maml", "sine-lft-l2o-first"):
        assert words[name] == "contradicted"


def test_numbers_are_those_of_scipy(make: Make) -> None:
    profile = report_profile(SEEDS, "sine")
    results = make(profile)
    found, other = verdicts(profile, results, claim(), claim(b=MAML))
    a, b, c = (by_seed(results, cell, "mse", 10) for cell in (LFT, L2O, MAML))
    first, second = (stats.ttest_1samp(np.log(a / x), 0).pvalue for x in (b, c))
    # CSV files keep seven digits.
    holm = 2 * first if first < second else max(first, 2 * second)
    assert found.p == pytest.approx(holm, rel=1e-3)
    leads = np.log(a / b)
    low, high = stats.t.interval(0.95, 4, leads.mean(), stats.sem(leads))
    assert (found.effect, found.low, found.high) == pytest.approx(
        tuple(np.exp([leads.mean(), low, high])), rel=1e-6
    )
    assert found.interval == "95 % t interval over 5 seeds"
    assert found.unit == "ratio"
    assert (found.n_for, found.n_seeds, found.status) == (5, 5, "judged")
    # Both numbers are geometric means over seeds, so that they make the ratio.
    shown = [float(text) for text in found.ours.split(" vs ")]
    assert shown == pytest.approx([np.exp(np.log(x).mean()) for x in (a, b)], abs=0.005)
    assert other.p is not None


def test_points_are_differences_and_cut_at_their_ends(make: Make) -> None:
    lead = {0: 0.5, 1: -0.4, 2: 0.1}

    def level(run: Run, _: str) -> float:
        return 0.45 + max(0, (1 if run.method == "lft" else -1) * lead[run.seed])

    profile = report_profile((0, 1, 2), "sine", "attack")
    found = verdict(profile, make(profile, level=level), attack())
    assert found.unit == "points"
    assert (found.low, found.high) == (-1, 1)
    assert found.cut
    assert found.verdict == "inconclusive"
    assert found.seeds_needed is not None
    assert found.seeds_needed > 1000
    assert found.detectable is not None
    assert found.detectable > 1


# ---------------------------------------------------------------- floors


def test_two_methods_that_learn_nothing_leave_a_claim_vacuous(make: Make) -> None:
    """MSE stays at the start's, give or take; L2O's is even worse than LFT's."""
    profile = report_profile(SEEDS, "sine")
    results = make(profile)
    rows = pd.read_csv(results / "measurements.csv")
    late = (rows["metric"] == "mse") & (rows["step"] > 0)
    factor = rows["method"].map({"lft": 1.0, "l2o": 1.5, "maml": 0.5})
    wobble = 1 + 0.01 * np.cos(3 * rows["seed"])
    rows.loc[late, "value"] = (4 * factor * wobble)[late]
    rewrite(results / "measurements.csv", rows)
    found = verdict(profile, results, claim())
    assert (found.verdict, found.a_at_floor, found.b_at_floor) == ("vacuous", True, True)
    one, equal = verdicts(profile, results, claim(b=MAML), claim(b=MAML, kind="not-worse"))
    assert (one.a_at_floor, one.b_at_floor) == (True, False)
    assert one.verdict == "contradicted"
    assert equal.verdict == "vacuous"  # as good as something that LFT, at its floor, is not


def test_the_floor_of_an_accuracy_is_a_guess(make: Make) -> None:
    """With ten outputs the start has 10 %; to have learned that a task has two ways is nothing."""
    profile = report_profile(SEEDS, "sine", "classification")
    results = make(profile)
    rows = pd.read_csv(results / "measurements.csv")
    of_accuracy = rows["metric"] == "accuracy"
    rows.loc[of_accuracy, "value"] = 0.1
    guess = 0.5 + 0.004 * np.cos(rows["seed"] + rows["method"].str.len())
    rows.loc[of_accuracy & (rows["step"] > 0), "value"] = guess
    rewrite(results / "measurements.csv", rows)
    a, b = (("cifar10", "cifar10", method, "first") for method in ("lft", "l2o"))
    tested = claim(experiment="classification", metric="accuracy", a=a, b=b)
    assert verdict(profile, results, tested).verdict == "vacuous"


def test_a_small_perturbation_means_nothing_where_no_image_is_fooled(make: Make) -> None:
    profile = report_profile(SEEDS, "sine", "attack")
    results = make(profile)
    rows = pd.read_csv(results / "measurements.csv")
    rows.loc[rows["metric"] == "asr", "value"] = 0.0
    rewrite(results / "measurements.csv", rows)
    assert verdict(profile, results, attack("distortion")).verdict == "vacuous"


def test_one_attack_that_fools_nobody_is_enough_to_make_distortions_vacuous(make: Make) -> None:
    profile = report_profile(SEEDS, "sine", "attack")
    results = make(profile)
    sound = verdict(profile, results, attack("distortion"))
    assert sound.verdict != "vacuous"
    rows = pd.read_csv(results / "measurements.csv")
    rows.loc[(rows["metric"] == "asr") & (rows["method"] == "l2o"), "value"] = 0.0
    rewrite(results / "measurements.csv", rows)
    found, success = verdicts(profile, results, attack("distortion"), attack())
    assert (found.a_at_floor, found.b_at_floor, found.verdict) == (False, True, "vacuous")
    assert f"compared at unequal success: ASR {success.ours}" in found.reason
    assert success.verdict == "supported"  # only a distortion means nothing then


def test_distortions_at_equal_success_have_no_note(make: Make) -> None:
    profile = report_profile(SEEDS, "sine", "attack")
    results = make(profile)
    rows = pd.read_csv(results / "measurements.csv")
    rows.loc[(rows["metric"] == "asr") & (rows["step"] > 0), "value"] = 0.7
    rewrite(results / "measurements.csv", rows)
    assert "unequal" not in verdict(profile, results, attack("distortion")).reason


# ---------------------------------------------------------------- first steps


def test_first_steps_are_those_of_the_mean_curve(make: Make) -> None:
    """LFT's mean ASR is full from step 4, 5 or 6; L2O's never, though half its tasks are from 2."""
    profile = report_profile(SEEDS, "sine", "attack")
    results = make(profile)
    rows = pd.read_csv(results / "measurements.csv")
    curve = rows["metric"] == "asr"
    lft, l2o = (curve & (rows["method"] == method) for method in ("lft", "l2o"))
    rows.loc[lft, "value"] = (rows["step"] >= 4 + rows["seed"] % 3).astype(float)
    rows.loc[l2o, "value"] = 0.9
    first = rows["metric"] == "first_full"
    rows.loc[first & (rows["method"] == "l2o"), "value"] = np.where(
        rows.loc[first & (rows["method"] == "l2o"), "task"].str[-1].astype(int) % 2, np.nan, 2
    )
    rewrite(results / "measurements.csv", rows)
    found = verdict(profile, results, attack("first_full", step=200))
    arrivals = np.array([4, 5, 6, 4, 5])
    assert found.effect == pytest.approx(np.exp(np.log(arrivals / 11).mean()))
    assert found.ours == "5 vs never"
    assert (found.a_at_floor, found.b_at_floor, found.verdict) == (False, True, "supported")
    # 12 tasks, of which those that end in an even digit arrive at step 2 of 10.
    assert "l2o: 50% of tasks arrive, restricted mean 6 steps" in found.reason
    assert "single tasks" not in found.reason
    rows.loc[lft, "value"] = 0.9
    rewrite(results / "measurements.csv", rows)
    never = verdict(profile, results, attack("first_full", step=200))
    assert (never.verdict, never.ours) == ("vacuous", "never vs never")
    assert "no seed's mean curve reaches 100 %; this says nothing of single tasks" in never.reason


# ---------------------------------------------------------------- failures


def runs(profile: Profile, method: str, *seeds: int) -> list[Run]:
    return [
        run
        for run in profile.runs("sine")
        if (run.method, run.order) == (method, "first") and run.seed in (seeds or profile.seeds)
    ]


def test_a_diverged_run_counts_with_its_floor(make: Make) -> None:
    profile = report_profile(SEEDS, "sine")
    results = make(profile, diverged=runs(profile, "lft", 1))
    found = verdict(profile, results, claim())
    a, b = (by_seed(results, cell, "mse", 10) for cell in (LFT, L2O))
    start = by_seed(results, L2O, "mse", 0)
    leads = np.log(a.reindex(b.index).fillna(start) / b)
    assert found.effect == pytest.approx(np.exp(leads.mean()), rel=1e-6)
    assert (found.a_diverged, found.b_diverged, found.a_untrained) == (1, 0, None)
    # One seed in which LFT is far behind makes the verdict, and the row says so.
    assert (found.verdict, found.without_failures) == ("inconclusive", "supported")


def test_a_single_diverged_task_gets_the_value_of_its_start(make: Make) -> None:
    profile = report_profile(SEEDS, "sine")
    results = make(profile)
    rows = pd.read_csv(results / "measurements.csv")
    cell = (rows["method"] == "lft") & (rows["order"] == "first") & (rows["metric"] == "mse")
    task = cell & (rows["seed"] == 0) & (rows["task"] == "sine-3")
    start = rows.loc[task & (rows["step"] == 0), "value"].item()
    rows.loc[task & (rows["step"] == 10), "value"] = np.inf
    rewrite(results / "measurements.csv", rows)
    found = verdict(profile, results, claim())
    values = (
        rows[cell & (rows["step"] == 10)].replace(np.inf, start).groupby("seed")["value"].mean()
    )
    b = by_seed(results, L2O, "mse", 10)
    assert found.effect == pytest.approx(np.exp(np.log(values / b).mean()), rel=1e-6)


def test_runs_that_were_not_trained_count_and_are_counted(make: Make) -> None:
    profile = report_profile(SEEDS, "sine")
    results = make(profile)
    for method in ("lft", "l2o"):
        for run in runs(profile, method):
            failed = (method, run.seed) == ("l2o", 2)
            write_history(results, run, TRAINED[::-1] if failed else TRAINED, error=0.01)
    found = verdict(profile, results, claim())
    assert (found.a_untrained, found.b_untrained, found.n_seeds) == (0, 1, 5)
    assert found.without_failures == "supported"


def test_a_verdict_that_an_untrained_seed_makes_says_so(make: Make) -> None:
    """In one seed L2O is far ahead of an LFT whose best checkpoint was the first."""

    def level(run: Run, _: str) -> float:
        return 0.05 if (run.method, run.seed) == ("lft", 3) else paper_level(run, "sine")

    profile = report_profile(SEEDS, "sine")
    results = make(profile, level=level)
    for run in (*runs(profile, "lft"), *runs(profile, "l2o")):
        failed = (run.method, run.seed) == ("lft", 3)
        write_history(results, run, TRAINED[::-1] if failed else TRAINED, error=0.01)
    found = verdict(profile, results, claim())
    assert (found.a_untrained, found.b_untrained) == (1, 0)
    assert (found.verdict, found.without_failures) == ("inconclusive", "supported")


def test_a_row_says_which_rules_a_method_is_behind(make: Make) -> None:
    """SGD attacks better than LFT, which attacks better than L2O."""
    levels = {"sgd": 0.95, "lft": 0.8, "l2o": 0.3, "maml": 0.2}
    profile = report_profile(SEEDS, "sine", "attack")
    results = make(profile, level=lambda run, _: levels.get(run.method, 0.5))
    write_claims(profile, results)
    rows = {row.claim: row for row in read_verdicts(results).claims}
    row = rows["asr-lft-l2o"]
    assert row.verdict == "supported"
    assert row.behind == "LFT is behind SGD on ASR; L2O is behind SGD on ASR"
    assert rows["sine-lft-l2o-first"].behind == ""  # there is no rule in this experiment


def test_two_methods_that_always_diverged_are_vacuous(make: Make) -> None:
    profile = report_profile(SEEDS, "sine")
    results = make(profile, diverged=runs(profile, "l2o") + runs(profile, "lft"))
    found = verdict(profile, results, claim())
    assert found.verdict == "vacuous"


# ---------------------------------------------------------------- what is missing


def test_a_missing_seed_is_inconclusive(sine: Profile, make: Make) -> None:
    found = verdict(sine, make(sine, missing=runs(sine, "l2o", 1)), claim())
    assert (found.verdict, found.n_seeds) == ("inconclusive", 2)
    assert found.reason == "n = 2/3 seeds"


def test_one_seed_is_inconclusive(make: Make) -> None:
    profile = report_profile((7,), "sine")
    results = make(profile)
    found = verdict(profile, results, claim())
    assert (found.verdict, found.reason) == ("inconclusive", "n = 1/1 seeds")
    checked = verdict(profile, results, theory_claim("statement1", "check"))
    assert (checked.verdict, checked.check) == (None, "holds")


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"experiment": "speech"}, "not in this profile", "experiment 'speech' is not in"),
        (
            {"b": ("sine", "sine", "reptile", "first")},
            "not in this profile",
            "reptile (sine to sine, first order) is not in this profile",
        ),
        (
            {"experiment": "attack", "metric": "asr", "a": ("mnist", "cifar10", "maml", "first")},
            "not applicable",
            "maml (mnist to cifar10, first order) is not applicable",
        ),
    ],
)
def test_what_the_profile_lacks_is_named(
    changes: dict[str, Any], status: str, reason: str, profile: Profile, results: Path
) -> None:
    found = verdict(profile, results, claim(**changes))
    assert (found.verdict, found.status) == (None, status)
    assert found.reason.startswith(reason)


def test_an_unmeasured_method_is_named(sine: Profile, make: Make) -> None:
    found = verdict(sine, make(sine, missing=runs(sine, "l2o")), claim())
    assert found.reason == "l2o (sine to sine, first order) has not been measured"
    assert (found.status, found.verdict) == ("not measured", None)


def test_no_theory_is_not_measured(sine: Profile, make: Make) -> None:
    results = make(sine)
    header = (results / "theory.csv").read_text().splitlines()[0]
    (results / "theory.csv").write_text(header + "\n")
    found = verdict(sine, results, theory_claim("bound", "check"))
    assert (found.status, found.reason) == ("not measured", "the theory has not been measured")


def test_a_later_step_than_the_profile_makes_is_its_last(profile: Profile, results: Path) -> None:
    found, same = verdicts(profile, results, claim(step=100), claim(step=10))
    assert "after 10 steps" in found.reason
    assert found.effect == same.effect


# ---------------------------------------------------------------- files


def test_claims_json_fits_its_schema_and_claims_csv_has_its_rows(report: Path) -> None:
    schema = json.loads((REFERENCE / "claims.schema.json").read_text(encoding="utf-8"))
    assert schema == Verdicts.model_json_schema(), "write it anew: docs/guide/report.md says how"
    content = json.loads((report / "claims.json").read_text(encoding="utf-8"))
    jsonschema.validate(content, schema)
    rows = pd.read_csv(report / "claims.csv", keep_default_na=False)
    assert list(rows) == list(Verdict.model_fields)
    assert rows["claim"].tolist() == [row.id for row in load_claims().claims]
    kept = read_verdicts(report)
    assert [row.verdict or "" for row in kept.claims] == rows["verdict"].tolist()
    row = next(row for row in kept.claims if row.claim == "asr-lft-l2o")
    assert (row.paper, row.n_seeds) == ("100 % vs 85 %", 3)
    # Synthetic runs took 2, 3 and 4 seconds; the claim rests on two methods.
    assert row.seconds == 18
    assert len(kept.family) == sum(claim.kind != "check" for claim in load_claims().claims)


def test_a_damaged_claims_json_is_told(report: Path, tmp_path: Path) -> None:
    text = (report / "claims.json").read_text(encoding="utf-8")
    (tmp_path / "claims.json").write_text(text.replace('"inconclusive"', '"undecided"'))
    with pytest.raises(UsageError, match=r"claims\.json: .*; delete the file"):
        read_verdicts(tmp_path)


def test_effects_over_steps_end_where_the_verdicts_are(profile: Profile, results: Path) -> None:
    rows = effects_over_steps(profile, results).set_index(["claim", "step"])
    found = {row.claim: row for row in judge(profile, results)}
    for name in ("asr-lft-l2o", "distortion-lft-l2o", "accuracy-both-both", "sine-lft-l2o-first"):
        last = rows.loc[(name, 10)]
        assert last["effect"] == pytest.approx(found[name].effect)
        assert (last["low"], last["high"]) == pytest.approx((found[name].low, found[name].high))
    assert not {"steps-lft-l2o", "theorem-1-sigma"} & set(rows.index.get_level_values("claim"))


def test_printed_numbers_are_those_of_the_tables_step(profile: Profile, results: Path) -> None:
    found = {row.claim: row for row in judge(profile, results)}
    assert {found[f"hybrid-adapts-faster-{step}"].paper for step in (5, 10)} == {"– vs –"}
    assert found["steps-lft-l2o"].paper == "55 vs 122"


def test_a_sentence_against_its_own_table_says_so(profile: Profile, results: Path) -> None:
    rows = judge(profile, results)
    against = {row.claim: row.reason for row in rows if "the sentence says" in row.reason}
    assert set(against) == {
        "transfer-distortion-lft-l2o", "transfer-both-distortion-lft-l2o",
        "both-distortion-lft-l2o-both",
    }  # fmt: skip
    assert all("the sentence says lower, the table higher" in text for text in against.values())
    # The third is the misprint.
    assert "it can only be 0.089" in against["both-distortion-lft-l2o-both"]


def test_the_papers_zeroth_order_has_no_printed_numbers(profile: Profile, results: Path) -> None:
    swapped = attack(b=("mnist", "mnist", "l2o", "zeroth"), step=100)
    assert verdict(profile, results, swapped).paper == "100 % vs –"


def test_the_curated_claims_fit_the_paper_profile_and_the_figures() -> None:
    from lft.config import load_profile

    paper = load_profile(REFERENCE.parent / "config" / "paper.yaml")
    cells = {
        (run.experiment, run.trained_on, tested_on, run.method, run.order): refusal
        for run, tested_on, refusal in paper.cells()
    }
    figures = {"figure-2", "figure-a1", "figure-3", "figure-4", "table-2", "figure-gap"}
    claims = load_claims()
    for entry in claims.claims:
        assert entry.figure in figures | {"figure-vanishing", "theory"}
        if isinstance(entry, CellClaim):
            for cell in (entry.a, entry.b):
                assert cells[(entry.experiment, *cell)] is None, entry.id
    assert {entry.hypothesis for entry in claims.claims} == set(claims.hypotheses)


def test_the_smallest_effects_of_interest_are_those_of_the_protocol() -> None:
    metrics = load_claims().metrics
    assert {name: scale.smallest for name, scale in metrics.items()} == {
        "asr": 0.05, "accuracy": 0.02, "mse": 1.1, "distortion": 1.1, "first_full": 1.1,
    }  # fmt: skip


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
version: 1
date: 2026-01-01
metrics:
  asr: {scale: points, better: higher, smallest: 0.05, floor: start}
  mse: {scale: ratio, better: lower, smallest: 1.1, floor: start}
hypotheses: {h: H}
claims:
- {id: one, claim: A, place: B, hypothesis: h, figure: theory, kind: check, test: bound}
- {id: two, claim: A, place: B, hypothesis: h, figure: figure-4, kind: better, experiment: sine,
   metric: mse, a: [sine, sine, lft, first], b: [sine, sine, l2o, first], step: 10}
"""

BAD = {
    "an unknown key": (("metric: mse", "metrik: mse"), "claim 2 (two): unknown key 'metrik'"),
    "a missing key": (("metric: mse, ", ""), "claim 2 (two): key 'metric' is missing"),
    "a wrong kind": (("kind: better", "kind: ordr"), "claim 2 (two): kind: input should be"),
    "a wrong test": (("test: bound", "test: bond"), "unknown test 'bond'; did you mean 'bound'?"),
    "a wrong method": (("sine, lft", "sine, ltf"), "unknown method 'ltf'; did you mean 'lft'?"),
    "a wrong order": (("lft, first", "lft, second"), "a.3: input should be 'first' or 'zeroth'"),
    "a wrong metric": (("metric: mse", "metric: mes"), "two: unknown metric 'mes'; did you mean"),
    "a hypothesis": (("hypothesis: h,", "hypothesis: k,"), "one: unknown hypothesis 'k'"),
    "a second id": (("id: two", "id: one"), "claim 'one' is listed twice"),
    "a second key": (("step: 10", "step: 10, step: 20"), "key 'step' is given twice"),
    "no list": ((GOOD, "id: one"), "and a list of claims"),
    "no YAML": (("[sine", "{sine"), "is not valid YAML"),
    "no version": (("version: 1", ""), "key 'version' is missing"),
}


def test_a_good_file_of_claims(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(GOOD)
    found = load_claims(path)
    assert isinstance(found, Claims)
    assert [claim.id for claim in found.claims] == ["one", "two"]


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
    rewrite(results / "theory.csv", theory[theory["seed"] != 1])
    found = verdict(sine, results, theory_claim("decay_query"))
    assert found.verdict == "inconclusive"
    assert found.reason.startswith("n = 2/3 seeds")
