"""Universes from their settings to the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_multiverse
from tiny import write_images
from tiny_multiverse import QUESTIONS, multiverse

from lft.config import load_profile
from lft.errors import Diverged, UsageError
from lft.meta import train as training
from lft.meta.universe import best_draw, run_universe
from lft.report.multiverse import shares
from lft.report.multiverse.analysis import Reading
from lft.report.multiverse.nearest import write_nearest
from lft.report.multiverse.write import write_multiverse
from lft.results import universes
from lft.results.universes import UNIVERSE_COLUMNS
from lft.storage.csv import read_rows

PROFILE = multiverse()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All universes of the tiny multiverse but one."""
    results = tmp_path_factory.mktemp("results") / "multiverse"
    write_images(results)
    for experiment, number in universes.names(PROFILE):
        if (experiment, number) != ("sine", 3):
            one = universes.universe(PROFILE, experiment, number, QUESTIONS)
            run_universe(PROFILE, one, results)
    return results


@pytest.fixture
def tiny_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_multiverse.use(monkeypatch)


def test_a_universe_measures_every_method_with_the_best_of_its_draws(run: Path) -> None:
    rows = read_rows(run / "universes/sine/1.csv", UNIVERSE_COLUMNS)
    assert set(rows["status"].astype(str)) == {"ok"}
    groups = rows.groupby(["seed", "method", "order", "metric"], observed=True)["step"]
    assert groups.count().to_dict() == {
        (seed, method, "first", metric): 5
        for seed in (0, 1)
        for method in ("maml", "l2o", "lft")
        for metric in ("mse", "mse_support")
    }
    said = json.loads((run / "universes/sine/1.json").read_text())
    for method, chosen in said["chosen"].items():
        assert chosen in said["draws"][method]
    assert said["settings"]["name"] == "tiny-sine-1"
    assert not (run / "universes/sine/1").exists()  # weights are not kept


def test_the_start_is_that_of_the_same_tasks_for_all_methods(run: Path) -> None:
    rows = read_rows(run / "universes/sine/2.csv", UNIVERSE_COLUMNS)
    start = rows[(rows["step"] == 0) & (rows["metric"] == "mse") & (rows["order"] == "first")]
    means = start.set_index(start["method"].astype(str))["mean"]
    assert means["l2o"] == means["lft"] != means["maml"]


def test_universes_share_images_and_victims(run: Path) -> None:
    assert len(list((run / "victims").glob("*/*.safetensors"))) == 2  # of two and three epochs


@pytest.mark.usefixtures("tiny_questions")
def test_the_report_says_in_how_many_readings_a_claim_holds(run: Path) -> None:
    write_multiverse(PROFILE, run)
    found = shares(run.parent / "reference")
    assert {row.experiment for row in found.values()} == {"sine", "attack"}
    assert found["sine-lft-l2o-first"].universes == 2
    assert "accuracy-cifar10-mnist" not in found  # not explored
    reading = Reading(PROFILE, run)
    for row in found.values():
        words = [one.word for one in reading.of_claim(row.claim)]
        assert len(words) == row.universes
        assert row.judged == row.universes - row.vacuous - row.diverged
        if row.judged:
            assert row.for_it == pytest.approx(words.count("for") / row.judged)
            assert row.for_it + row.against + row.within == pytest.approx(1)
            assert (run / f"curves/curve-{row.claim}.csv").is_file()
    page = (run / "multiverse.html").read_text()
    assert "4 of 5 readings" in " ".join(page.split())
    assert "sine-lft-l2o-first" in page
    assert "sha256-" in page


@pytest.mark.usefixtures("tiny_questions")
def test_the_nearest_reading_is_a_profile_without_verdicts(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "nearest.yaml"
    number = write_nearest(PROFILE, run, "attack", path)
    found = load_profile(path)
    assert found.name == "nearest-attack"
    assert found.fitted
    one = universes.universe(PROFILE, "attack", number, QUESTIONS)
    assert found.victims.epochs == int(one.levels["victim"])
    with pytest.raises(UsageError, match="computes a number of the paper's tables"):
        write_nearest(PROFILE, run, "sine", path)


def test_what_was_trained_is_not_trained_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = universes.universe(PROFILE, "sine", 3, QUESTIONS)
    trained: list[Any] = []
    real = training._train

    def interrupted(*arguments: Any) -> None:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(arguments[1])
        real(*arguments)

    monkeypatch.setattr(training, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_universe(PROFILE, one, tmp_path)
    assert not (tmp_path / "universes/sine/3.csv").exists()
    monkeypatch.setattr(training, "_train", lambda *a: (trained.append(a[1]), real(*a)))
    run_universe(PROFILE, one, tmp_path)
    assert len(trained) == len(set(trained)) == 6  # two draws, three methods
    monkeypatch.undo()
    run_universe(PROFILE, one, tmp_path / "at once")
    here, there = (
        (folder / "universes/sine/3.csv").read_bytes()
        for folder in (tmp_path, tmp_path / "at once")
    )
    assert here == there


@pytest.mark.usefixtures("tiny_questions")
def test_a_method_that_diverges_is_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training._watched

    def train(learner: Any, *rest: Any) -> None:
        if learner.method.name.startswith("l2o"):
            raise Diverged("too steep")
        real(learner, *rest)

    monkeypatch.setattr(training, "_watched", train)
    run_universe(PROFILE, universes.universe(PROFILE, "sine", 3), tmp_path)
    reading = Reading(PROFILE, tmp_path)
    words = {one.claim: one.word for one in reading.outcomes}
    assert words["sine-lft-l2o-first"] == "diverged"
    assert words["sine-lft-maml-first"] != "diverged"
    assert reading.diverged("sine") == {"maml": [False], "l2o": [True], "lft": [False]}
    said = json.loads((tmp_path / "universes/sine/3.json").read_text())
    assert set(said["reasons"].values()) == {"too steep"}


def test_levels_that_do_not_go_together_are_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = {"name": "segment", "experiments": ["sine"], "sets": ["training.segment"],
            "levels": [tiny_multiverse.level(3), tiny_multiverse.level(5)]}  # fmt: skip
    tiny_multiverse.use(monkeypatch, (tiny_multiverse.question(8, fork),))
    run_universe(PROFILE, universes.universe(PROFILE, "sine", 1), tmp_path)
    words = {one.word for one in Reading(PROFILE, tmp_path).outcomes}
    assert words == {"not applicable"}


def test_other_forks_than_those_of_a_universe_are_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_multiverse.use(monkeypatch, QUESTIONS[:1])
    with pytest.raises(UsageError, match="took other levels than the open questions give now"):
        Reading(PROFILE, run)


def test_the_best_draw_is_the_one_that_meta_validation_prefers() -> None:
    never = math.inf
    assert best_draw({1: [0.5], 2: [0.2], 3: [0.4]}) == 2
    # Relative to each order's best: 0 + 1 against 0.1 + 0.
    assert best_draw({1: [1.0, 40.0], 2: [1.1, 20.0]}) == 2
    assert best_draw({1: [0.1, never], 2: [9.0, 9.0]}) == 2
    assert best_draw({1: [never], 2: [never]}) == 1
    assert best_draw({1: [0.0], 2: [0.1]}) == 1
