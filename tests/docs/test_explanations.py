"""Reasons that docs/explanation/results.md gives for results that differ from the paper's."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch
from checkout import ROOT

from lft.config import load_profile
from lft.finetuners.base import FineTuner
from lft.finetuners.gradient_descent import SGD, Adam
from lft.meta.adapt import adapt
from lft.meta.gradients import FirstOrder
from lft.seeding import generator
from lft.tasks.base import TaskFamily
from lft.tasks.build import build_families
from lft.types import Params, TaskBatch

REFERENCE = ROOT / "results/reference"
SEEDS = [0, 1, 2]
N_TASKS, STEPS = 1000, 50


@pytest.fixture(scope="module")
def sines(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFamily, TaskBatch, Params]:
    """The paper profile's sines: training tasks and random starts."""
    profile = load_profile(ROOT / "workflow/config/paper.yaml")
    results = tmp_path_factory.mktemp("results")
    family = build_families(profile, profile.experiment("sine"), ["sine"], results)["sine"]
    random = generator("explanations", "sine")
    tasks = family.sample(N_TASKS, random, "train")
    return family, tasks, family.init(N_TASKS, random)


@torch.no_grad()
def outer_loss(tuner: FineTuner, family: TaskFamily, tasks: TaskBatch, start: Params) -> float:
    """Eq. 4 with w_k = 1/K: the query loss, averaged over tasks and steps."""
    points = adapt(family, tuner, start, tasks.support, steps=STEPS, gradient=FirstOrder())
    losses = [float(family.loss(point.params, tasks.query).mean()) for point in points]
    return sum(losses) / STEPS


# The differences are 0.3 and more. Over 1000 tasks, the same for every step size, their standard
# errors are at most 0.12, so 0.1 separates them from none whatever tasks are drawn.


def test_small_steps_are_a_local_optimum_of_lfts_outer_loss_on_sines(
    sines: tuple[TaskFamily, TaskBatch, Params],
) -> None:
    """Between small steps and those that fit the sine lie step sizes that only over-fit."""
    family, tasks, start = sines
    small, medium = (outer_loss(Adam(size), family, tasks, start) for size in (3e-4, 3e-3))
    assert medium > small + 0.1
    by_descent = [outer_loss(SGD(size), family, tasks, start) for size in (1e-4, 1e-3, 1e-2)]
    assert by_descent[1] < min(by_descent[0], by_descent[2]) - 0.1


def test_l2os_outer_loss_on_sines_falls_all_the_way(
    sines: tuple[TaskFamily, TaskBatch, Params],
) -> None:
    family, tasks, start = sines
    joined = tasks.joined()
    by_adam = [outer_loss(Adam(size), family, joined, start) for size in (3e-4, 3e-3, 3e-2)]
    by_descent = [outer_loss(SGD(size), family, joined, start) for size in (1e-4, 1e-3, 1e-2)]
    for losses in (by_adam, by_descent):
        assert losses[0] - 0.1 > losses[1] > losses[2] + 0.1


# What follows holds the texts to the kept reference run.


def history_of(cell: str, seed: int) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / "runs" / cell / f"seed{seed}" / "history.csv")


Mean = Callable[[str, str, int], float]
"""Of a method's metric at a step, over test tasks and seeds."""


def mean_of(experiment: str, trained_on: str, tested_on: str) -> Mean:
    frame = pd.read_csv(REFERENCE / "summary.csv")
    cell = frame[
        (frame["experiment"] == experiment)
        & (frame["trained_on"] == trained_on)
        & (frame["tested_on"] == tested_on)
    ]
    by_key = cell.groupby(["method", "metric", "step"])["mean"].mean()
    return lambda *key: float(by_key[key])


@pytest.mark.parametrize("seed", SEEDS)
def test_lfts_loss_on_cifar10_falls_while_its_error_rises(seed: int) -> None:
    """Between the first and the last validation."""
    history = history_of("classification/cifar10/lft-first", seed)
    validations = history["validation"].dropna()
    until_first = history.loc[: validations.index[0], "loss"]
    assert history["loss"].tail(len(until_first)).mean() < until_first.mean()
    assert validations.iloc[-1] > validations.iloc[0]


def test_no_random_start_reaches_the_papers_accuracy_on_cifar10_and_mamls_does() -> None:
    mean = mean_of("classification", "cifar10", "cifar10")
    papers = 0.66
    assert mean("maml", "accuracy", 100) > papers
    assert all(mean(m, "accuracy", 100) < papers for m in ("lft", "l2o", "sgd", "adam"))


@pytest.mark.parametrize("tested_on", ["mnist", "cifar10"])
def test_lft_is_behind_l2o_at_step_5_and_ahead_at_step_100(tested_on: str) -> None:
    mean = mean_of("classification", "mnist+cifar10", tested_on)
    assert mean("lft", "accuracy", 5) < mean("l2o", "accuracy", 5)
    assert mean("lft", "accuracy", 100) > mean("l2o", "accuracy", 100)


@pytest.mark.parametrize("seed", SEEDS)
def test_l2os_attacks_overfit_the_support_set(seed: int) -> None:
    """Ever less the loss on its own images, and twice as much as LFT's on others."""
    l2o, lft = (history_of(f"attack/mnist/{method}-first", seed) for method in ("l2o", "lft"))
    assert l2o["loss"].tail(20).mean() < 0.4 < lft["loss"].tail(20).mean()
    assert l2o["validation"].min() > 2 * lft["validation"].min()


def test_l2os_attacks_fool_ever_fewer_unseen_images() -> None:
    mean = mean_of("attack", "mnist", "mnist")
    assert mean("l2o", "asr_support", 100) > 0.95
    assert mean("l2o", "asr", 5) > mean("l2o", "asr", 20) > mean("l2o", "asr", 100)
    assert mean("l2o", "asr", 100) < mean("sgd", "asr", 100)
    assert mean("l2o", "distortion", 100) < mean("maml", "distortion", 100) / 2


def test_lft_attacks_less_if_distortion_costs_more() -> None:
    rows = pd.read_csv(ROOT / "results/alternatives/alternatives.csv")
    heavy = rows[rows["alternative"] == "lft-heavy"].set_index("metric")
    assert (heavy["high"] < 0).all()  # intervals over seeds
    assert heavy.loc["distortion", "mean"] < heavy.loc["distortion", "base"] / 2
