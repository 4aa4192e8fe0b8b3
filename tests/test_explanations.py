"""Reasons that docs/explanation/results.md gives for results that differ from the paper's."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from lft.adapt import adapt
from lft.config import load_profile
from lft.finetuners.base import FineTuner
from lft.finetuners.gradient_descent import SGD, Adam
from lft.gradients import FirstOrder
from lft.seeding import generator
from lft.tasks.base import TaskFamily
from lft.types import Params, TaskBatch
from lft.world import build_families

ROOT = Path(__file__).resolve().parents[1]
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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lfts_loss_on_cifar10_falls_while_its_error_rises(seed: int) -> None:
    """In the kept reference run, between the first and the last validation of each seed."""
    runs = ROOT / "results/reference/runs/classification/cifar10/lft-first"
    history = pd.read_csv(runs / f"seed{seed}" / "history.csv")
    validations = history["validation"].dropna()
    until_first = history.loc[: validations.index[0], "loss"]
    assert history["loss"].tail(len(until_first)).mean() < until_first.mean()
    assert validations.iloc[-1] > validations.iloc[0]
