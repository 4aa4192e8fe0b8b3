"""Meta-gradient norms against the number of steps: values, settings and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_profile

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.meta.gradients import value_and_grad
from lft.meta.learner import Learner
from lft.meta.train import train
from lft.seeding import generator
from lft.storage.tensors import below, load_tensors, save_tensors
from lft.tasks.build import build_families
from lft.theory.vanishing import measure, unrolled

VALUE, TASK, STEPS, METHOD, STAGE = -1, -2, 5, 3, 1
"""Places in a row of THEORY_COLUMNS."""


@pytest.fixture(scope="module")
def profile() -> Profile:
    return tiny_profile(seeds=[0], threads=1)


@pytest.fixture(scope="module")
def results(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for method in ("lft", "maml"):
        train(profile, Run("sine", "sine", method, "first", 0), folder)
    return folder


def rows(profile: Profile, results: Path) -> list[tuple[Any, ...]]:
    return list(measure(profile, "sine", 0, results))


@pytest.mark.parametrize("stage", ["initial", "best"])
@pytest.mark.parametrize("method", ["lft", "maml"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_norm_is_that_of_plain_autograd(
    profile: Profile, results: Path, method: str, steps: int, stage: str
) -> None:
    """The last step's query loss of one task, differentiated through the whole trajectory."""
    run = Run("sine", "sine", method, "first", 0)
    learner = Learner.of(profile, run)
    flat, _ = load_tensors(results / run.folder / "weights.safetensors")
    meta = {name: leaf.requires_grad_() for name, leaf in below(stage, flat).items()}
    family = build_families(profile, profile.experiment("sine"), ["sine"], results)["sine"]
    found = {
        row[TASK]: row[VALUE]
        for row in rows(profile, results)
        if (row[METHOD], row[STEPS], row[STAGE]) == (method, steps, stage)
    }
    assert set(found) == {"sine-0", "sine-1"}
    for task in range(2):
        random = generator("vanishing", "sine", 0, task)
        tasks = family.sample(1, random, "train")
        params = learner.start(meta, family, 1, random)
        params = {name: leaf.requires_grad_() for name, leaf in params.items()}
        tuner = learner.tuner(meta)
        state = tuner.start(params)
        for _ in range(steps):
            grads = value_and_grad(family, params, tasks.support, create_graph=True)[1]
            state, params = tuner.step(state, params, grads)
        loss = family.loss(params, tasks.query).mean()
        leaves = torch.autograd.grad(loss, list(meta.values()))
        expected = float(torch.cat([leaf.flatten() for leaf in leaves]).norm())
        # float32: the same derivatives through another graph, a few steps of rounding.
        assert found[f"sine-{task}"] == pytest.approx(expected, rel=1e-4)


def test_unrolled_looks_at_the_last_of_k_steps_through_everything(profile: Profile) -> None:
    for method in ("lft", "maml"):
        learner = unrolled(Learner.of(profile, Run("sine", "sine", method, "first", 0)), 7)
        assert learner.plan.segment == learner.plan.steps == 7
        assert learner.plan.estimator == "exact"
        assert learner.experiment.training.step_weights == "final"


def test_what_is_not_finite_is_written_as_it_is(
    profile: Profile, results: Path, tmp_path: Path
) -> None:
    for method in ("lft", "maml"):
        run = Run("sine", "sine", method, "first", 0)
        flat, info = load_tensors(results / run.folder / "weights.safetensors")
        if method == "maml":
            flat = {name: leaf * torch.inf for name, leaf in flat.items()}
        save_tensors(tmp_path / run.folder / "weights.safetensors", flat, info)
    finite: dict[str, set[bool]] = {}
    for row in rows(profile, tmp_path):
        finite.setdefault(row[METHOD], set()).add(bool(np.isfinite(row[VALUE])))
    assert finite == {"lft": {True}, "maml": {False}}


def test_absent_weights_are_one_line(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weights\.safetensors is missing"):
        rows(profile, tmp_path)
