"""The study of what trains the fine-tuners: its trials, its arithmetic, and the page it makes."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from checkout import ROOT
from scipy import stats
from tiny import profile_values

from lft.config import Run, load_profile
from lft.errors import UsageError

ROWS = ROOT / "results/training"
PAGE = ROOT / "docs/explanation/training.md"


def script(name: str) -> ModuleType:
    """A script as a module."""
    path = ROOT / f"workflow/studies/{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made() -> ModuleType:
    return script("trials_table")


@pytest.fixture(scope="module")
def trials(made: ModuleType) -> ModuleType:  # imports the other script
    return script("trials")


@pytest.fixture(scope="module")
def study(trials: ModuleType) -> Any:
    return trials.load_study(ROOT / "workflow/studies/trainability.yaml")


@pytest.mark.parametrize("name", ["trainability", "causes"])
def test_every_trial_has_settings_that_fit(trials: ModuleType, name: str) -> None:
    study = trials.load_study(ROOT / f"workflow/studies/{name}.yaml")
    profile = trials.with_trials(load_profile(study.profile), study)
    for name, trial in study.trials.items():
        assert profile.experiment(trial.experiment).base_method(name).name == trial.method
        assert all(study.trials[n].experiment == trial.experiment for n in trial.against)


@pytest.mark.parametrize(("name", "read"), [("trials", "load_study"), ("search", "load_search")])
def test_a_misspelt_key_of_a_study_is_one_line(name: str, read: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("profil: reference\n")
    with pytest.raises(UsageError, match=r"study\.yaml: unknown key 'profil'"):
        getattr(script(name), read)(tmp_path / "study.yaml")


def test_the_page_shows_what_the_rows_say(made: ModuleType, study: Any) -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = made.load_rows(ROWS)
    assert rows.keys() <= study.trials.keys()
    assert made.with_table(text, made.table(study, rows)) == text
    for name, found in rows.items():
        assert study.trials[name].outcome, f"write down the outcome of {name}"
        assert [row["seed"] for row in found] == list(study.seeds[: len(found)])


def test_the_rows_were_made_under_the_settings_of_their_trials(
    made: ModuleType, trials: ModuleType, study: Any
) -> None:
    profile = trials.with_trials(load_profile(study.profile), study)
    for name, found in made.load_rows(ROWS).items():
        trial = study.trials[name]
        run = Run(trial.experiment, trial.trained_on, name, "first", study.seeds[0])
        now = json.loads(json.dumps(profile.training_inputs(run)))
        if "training" not in now or now["finetuner"].pop("kind") != "lstm":
            continue  # its settings are in no file of the study
        for row in found:
            assert row["settings"]["training"] == now["training"], name
            assert row["settings"]["finetuner"].items() >= now["finetuner"].items(), name


def best_validation(row: dict[str, Any]) -> float:
    return min(score for step, score, *_ in row["training"]["validations"] if step)


def test_what_the_page_says_of_fast_evolution_strategies(trials: ModuleType) -> None:
    rows = trials.load_rows(ROWS)
    gains = [
        100 - 100 * best_validation(fast) / best_validation(slow)
        for fast, slow in zip(rows["lft-evolution-fast"], rows["lft-evolution"], strict=True)
    ]
    said = f"look {min(gains):.0f} to {max(gains):.0f} % better"
    assert said in PAGE.read_text(encoding="utf-8")


def row(seed: int, end: float, metric: str) -> dict[str, Any]:
    curve = {"0": [9.0, 0.1], "10": [end, 0.1]}
    return {"seed": seed, "measured": {"best": {"family": {metric: curve}}}}


def test_effects_are_paired_t_intervals(made: ModuleType) -> None:
    one, other = [1.0, 2.5, 3.0], [1.5, 2.0, 4.0]
    for metric in ("mse", "accuracy"):
        change = np.log if metric == "mse" else lambda x: 100 * np.asarray(x)
        back = math.exp if metric == "mse" else float
        expected = stats.ttest_rel(change(one), change(other))
        low, high = expected.confidence_interval(0.95)
        found = made.effect(
            [row(seed, end, metric) for seed, end in enumerate(one)],
            # In another order, and with a seed that has no partner.
            [row(seed, other[seed], metric) for seed in (2, 0, 1)] + [row(7, 1.0, metric)],
        )
        mean = np.mean(np.subtract(change(one), change(other)))
        assert found[:3] == pytest.approx((back(mean), back(low), back(high)), rel=1e-9)
        assert found.seeds == 3
    assert made.effect([row(0, 1.0, "mse")], [row(1, 1.0, "mse")]) is None
    alone = made.effect([row(0, 1.0, "mse")], [row(0, 2.0, "mse")])
    assert alone.mean == pytest.approx(0.5)
    assert math.isinf(alone.high)


def test_trials_are_run_measured_and_passed_over_the_next_time(
    made: ModuleType, trials: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(profile_values()))
    words = {"suspect": "none", "prediction": "none", "excludes": "nothing"}
    trial = {"experiment": "sine", "trained_on": "sine", **words}
    values = {
        "profile": str(tmp_path / "tiny.yaml"),
        "seeds": [0],
        "tasks": 5,
        "steps": [1, 4],
        "common": {"sine": {"training.epochs": 2}},
        "trials": {
            "plain": {**trial, "method": "lft"},
            "evolved": {**trial, "method": "lft", "set": {"training.estimator": "evolution"}},
            "sgd": {**trial, "method": "sgd"},
        },
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
    options = ["study.yaml", "--results", "results", "--rows", "rows"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["trials.py", *options])
    trials.main()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "rows").iterdir()}
    assert sorted(kept) == ["evolved-seed0.json", "plain-seed0.json", "sgd-seed0.json"]
    monkeypatch.setattr(trials, "train", None)  # nothing is trained again
    trials.main()
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "rows").iterdir()}
    found = json.loads(kept["evolved-seed0.json"])
    assert found["settings"]["training"]["estimator"] == "evolution"
    assert found["meta_batches"] == 12  # twice the six of the profile
    assert set(made.curve(found)) == {0, 1, 4}
    assert [step for step, *_ in found["training"]["validations"]] == [0, 4, 8, 12]
    monkeypatch.setattr(sys, "argv", ["trials.py", *options, "--trials", "plan"])
    with pytest.raises(UsageError, match="unknown trial 'plan'"):
        trials.main()


def test_a_search_draws_runs_again_and_judges(
    trials: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = script("search")

    def run(*options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["search.py", *options])
        search.main()

    run("draw", str(tmp_path / "drawn.yaml"))
    drawn = trials.load_study(tmp_path / "drawn.yaml")
    assert len(drawn.trials) == 12 * 9  # trials, methods of three experiments
    assert drawn.seeds == (100,)
    trials.with_trials(load_profile(drawn.profile), drawn)  # all settings fit

    rows = tmp_path / "rows"
    rows.mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        run("again", str(tmp_path / "again.yaml"), "--rows", str(rows))
    rates = {}
    for name, trial in drawn.trials.items():
        rate = next(value for key, value in trial.set.items() if key.endswith("learning_rate"))
        rates[name] = rate
        for seed in (100, 101, 102):
            # Lower rates are better; the score of the start, step 0, does not count.
            validations = [[0, -1.0, 0.1, 1.0], [5, rate + seed, 0.001, 1.0], [9, 1e9, 0.001, 1.0]]
            row = {
                "trial": name,
                "seed": seed,
                "status": "ok",
                "training": {"validations": validations},
            }
            (rows / f"{name}-seed{seed}.json").write_text(json.dumps(row))
    run("again", str(tmp_path / "again.yaml"), "--rows", str(rows))
    again = trials.load_study(tmp_path / "again.yaml")
    assert again.seeds == (100, 101, 102)
    mine = {name: rate for name, rate in rates.items() if name.startswith("sine-lft-")}
    lowest = sorted(mine, key=lambda name: mine[name])[:4]
    assert [name for name in again.trials if name.startswith("sine-lft-")] == lowest
    run("judge", str(tmp_path / "judged.csv"), "--rows", str(rows))
    frame = pd.read_csv(tmp_path / "judged.csv").set_index(["experiment", "method"])
    judged = frame.loc[("sine", "lft")]
    assert judged["score"] == pytest.approx(101 + min(mine.values()), rel=1e-6)
    curve = json.loads(judged["expected_best"])
    assert curve[0] == pytest.approx(100 + np.mean(list(mine.values())), rel=1e-3)
    assert curve == sorted(curve, reverse=True)
    # The lowest rate is the best, so that edge is open; the other is worse.
    assert "'training.learning_rate': {'low': False, 'high': True}" in judged["edges"]


def test_what_the_page_says_of_sine_is_in_the_rows(made: ModuleType) -> None:
    rows = made.load_rows(ROWS)
    curves = {name: [made.curve(row) for row in found] for name, found in rows.items()}

    def ratios(name: str, other: str, step: int) -> list[float]:
        pairs = zip(curves[name], curves[other], strict=False)
        return [one[step] / two[step] for one, two in pairs]

    contrast = ratios("lft", "l2o-support", 100)
    assert min(contrast) > 1.5
    assert np.mean(contrast) == pytest.approx(2.2, abs=0.2)
    assert abs(np.log(ratios("l2o-support", "l2o", 100)).mean()) < math.log(1.1)
    for step in (50, 100):
        assert np.mean(ratios("l2o", "lft", step)) < 0.9
    for name in ("lft-capped", "lft-exact", "lft-linear", "lft-final", "l2o-union"):
        assert np.exp(np.log(ratios(name, "lft", 100)).mean()) > 0.85
    assert 0.85 < np.exp(np.log(ratios("lft-evolution", "lft", 100)).mean()) < 1.1
    seed = 0  # of the one long training
    assert ratios("lft-evolution-long", "lft-evolution", 100)[seed] < 0.85
    for name in ("lft", "lft-capped", "lft-exact", "lft-linear", "lft-final"):
        assert ratios("lft-evolution-long", name, 100)[seed] < 0.85
    assert 0.7 < ratios("l2o-evolution", "lft-evolution", 100)[seed] < 1
    assert ratios("l2o", "lft", 100)[seed] < 0.6
    lost = zip(rows["lft-warm-evolution"], rows["l2o"], strict=True)
    assert all(made.end(one, "last") > made.end(two, "last") for one, two in lost)
    assert max(ratios("adam", "lft", 100)) < 1 < min(ratios("adam", "lft", 5))
    assert max(ratios("maml", "lft", 100)) < 0.2
    spread = [
        error / score
        for row in rows["lft-evolution"]
        for step, score, error, _ in row["training"]["validations"]
        if step
    ]
    assert np.median(spread) == pytest.approx(0.2, abs=0.05)
