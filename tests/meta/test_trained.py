"""The checks for trained, on histories made by hand, and on small trainings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny import tiny_profile

from lft.config import Run
from lft.errors import UsageError
from lft.meta.learner import Learner
from lft.meta.train import train
from lft.meta.trained import check, longer_profile, tuned
from lft.results.history import read_history
from lft.results.trained import (
    LONGER_FOLDER,
    Validations,
    checked,
    longer_does_not_help,
    smallest_effect,
    stable,
    the_end_is_good,
    worth_it,
)
from lft.storage.json import read_json
from lft.tasks.build import build_families


def validations(
    scores: list[float], error: float = 0.1, outer: list[float] | None = None
) -> Validations:
    steps = [10 * (i + 1) for i in range(len(scores))]
    return Validations(steps, scores, [error] * len(scores), outer or scores, 1.0)


FALLING = [2 - 0.05 * i for i in range(20)]


@pytest.mark.parametrize(
    ("longer", "error", "smallest", "passed"),
    [
        (0.96, 0.1, 0.2, True),  # better by 0.04
        (0.96, 0.03, 0.2, False),  # more than a standard error
        (0.96, 0.1, 0.03, False),  # more than what matters
        (3.0, 0.1, 0.2, True),  # worse
        (0.96, math.nan, 0.2, None),  # kept without errors
    ],
)
def test_longer_does_not_help(
    longer: float, error: float, smallest: float, passed: bool | None
) -> None:
    short = validations([2.0, 1.0, 1.5], error)
    found = longer_does_not_help(short, validations([2.0, longer, 4.0]), smallest)
    assert found.passed is passed
    assert found.value == pytest.approx(1.0 - min(longer, 2.0))


@pytest.mark.parametrize(
    ("scores", "passed"),
    [
        (FALLING, True),
        (FALLING[::-1], False),  # the first is the best
        ([1.0, *[1.05] * 19], True),  # the first is, but by less than a standard error
        ([1.0, *[1.2] * 19], False),
        ([*[1.2] * 10, 1.0, *[1.2] * 9], True),  # the eleventh of twenty
        ([*[1.2] * 9, 1.0, *[1.2] * 10], False),  # the tenth: not yet the last half
        (FALLING[:19], None),  # too few to tell
    ],
)
def test_the_end_is_good(scores: list[float], passed: bool | None) -> None:
    assert the_end_is_good(validations(scores)).passed is passed


def test_stable_allows_one_in_a_hundred_after_the_first_tenth() -> None:
    fine = [1.0] * 1000
    for exploding, passed in ((0, True), (9, True), (10, False)):
        outer = [1e6] * 100 + [50.0] * exploding + fine[: 900 - exploding]
        found = stable(validations(fine, outer=outer))
        assert found.passed is passed
        assert found.value == pytest.approx(exploding / 900)
    # A loss that is no number, or no longer finite, exploded.
    for broken in (math.nan, math.inf):
        assert stable(validations(fine[:10], outer=[1.0] * 9 + [broken])).passed is False


def test_worth_it_compares_with_the_best_baseline() -> None:
    baselines = [validations([5.0, 4.0]), validations([1.0, 9.0])]
    # The standard error of a difference is that of one times √2: 0.141.
    assert worth_it(validations([1.14]), baselines).passed is True
    assert worth_it(validations([1.15]), baselines).passed is False


def test_what_matters_is_two_points_or_a_tenth() -> None:
    assert smallest_effect("accuracy", 0.4) == 0.02
    assert smallest_effect("mse", 2.2) == pytest.approx(0.2)


def test_histories_kept_before_errors_were_recorded_are_read(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("meta_step,family,loss,validation\n1,sine,2.5,\n2,sine,2.0,1.5\n")
    frame = read_history(path)
    assert frame["loss"].tolist() == [2.5, 2.0]
    found = Validations.of(frame)
    assert (found.steps, found.scores) == ([2], [1.5])
    assert math.isnan(found.start)
    assert stable(found).passed is None
    path.write_text("meta_step,family,loss\n1,sine,2.5\n")
    with pytest.raises(UsageError, match="line 1: expected the columns"):
        read_history(path)


def test_a_run_is_checked_from_its_result_folder(tmp_path: Path) -> None:
    profile = tiny_profile()
    run = Run("sine", "sine", "lft", "first", 0)
    with pytest.raises(UsageError, match="cannot read"):
        check(profile, run, tmp_path)
    train(profile, run, tmp_path)
    found = check(profile, run, tmp_path)
    assert [each.name for each in found] == [
        "longer does not help",
        "the end is good",
        "stable",
        "worth it",
    ]
    assert all(math.isfinite(each.value) for each in found)
    assert found[1].passed is None  # 3 validations
    kept = read_json(tmp_path / "longer" / run.folder / "run.json")
    assert kept["meta_batches"] == 3 * 6
    with pytest.raises(UsageError, match="sgd is not meta-trained"):
        check(profile, run._replace(method="sgd"), tmp_path)


def test_the_longer_rerun_stretches_what_a_variant_sets() -> None:
    variant = {"method": "lft", "label": "x", "set": {"training.epochs": 2}}
    profile = tiny_profile(experiments__sine__variants={"bold": variant})
    for method, epochs in (("bold", 6), ("lft", 3)):
        longer = longer_profile(profile, Run("sine", "sine", method, "first", 0))
        experiment = longer.experiment("sine")
        assert experiment.for_method(method).training.epochs == epochs
        assert experiment.for_method(method).maml.epochs == 3
        assert experiment.base_method(method).name == "lft"


def test_baselines_are_judged_on_the_methods_own_data(tmp_path: Path) -> None:
    """On LFT's they score what meta-validation wrote for SGD and Adam; on L2O's another number."""
    profile = tiny_profile()
    run = Run("sine", "sine", "lft", "first", 0)
    learner = Learner.of(profile, run)
    families = build_families(profile, learner.experiment, ["sine"], tmp_path)
    found = tuned(learner, run, families)
    for rule, baseline in zip(("sgd", "adam"), found, strict=True):
        train(profile, run._replace(method=rule), tmp_path)
        kept = read_history(tmp_path / run._replace(method=rule).folder / "history.csv")
        # Seven digits are written.
        assert baseline.scores == pytest.approx(kept["validation"].tolist(), rel=1e-6)
        assert baseline.errors == pytest.approx(kept["error"].tolist(), rel=1e-6)
    other = Learner.of(profile, run._replace(method="l2o"))
    assert tuned(other, run, families)[0].scores != found[0].scores


def test_all_meta_trainings_of_the_first_seed_are_checked() -> None:
    given = {"experiments__attack__measurements": {"lft": "given.csv"}}
    runs = checked(tiny_profile(seeds=[3, 5], **given))
    assert {run.seed for run in runs} == {3}
    methods = {(run.experiment, run.method) for run in runs}
    assert ("sine", "lft") in methods
    assert not methods & {("sine", "sgd"), ("sine", "adam"), ("attack", "lft"), ("attack", "maml")}


def test_a_check_without_baselines_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    methods = {"experiments__sine__methods": ["lft", "maml"]}
    profile = tiny_profile(**methods, experiments__sine__step_sizes={"sgd": [0.1]})
    run = Run("sine", "sine", "lft", "first", 0)
    train(profile, run, tmp_path)
    for refused in (lambda: check(profile, run, tmp_path), lambda: checked(profile)):
        with pytest.raises(UsageError, match=r"'sine' the key 'step_sizes\.adam'"):
            refused()
    assert not (tmp_path / LONGER_FOLDER).exists()
