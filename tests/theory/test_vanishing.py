"""Meta-gradient norms against the number of steps: values, settings and what is left out."""

from __future__ import annotations

from collections.abc import Iterator
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

VALUE, STEPS, METHOD = -1, 5, 3
"""Places in a row of THEORY_COLUMNS."""


@pytest.fixture(autouse=True, scope="module")
def settings_of_torch() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


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
    return list(measure(profile, "sine", results))


def test_both_methods_have_a_norm_for_every_number_of_steps(
    profile: Profile, results: Path
) -> None:
    found = rows(profile, results)
    assert {(row[METHOD], row[STEPS]) for row in found} == {
        (method, steps) for method in ("lft", "maml") for steps in (1, 2)
    }
    assert all(np.isfinite(row[VALUE]) and row[VALUE] > 0 for row in found)
    assert found == rows(profile, results)


@pytest.mark.parametrize("method", ["lft", "maml"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_norm_is_that_of_plain_autograd(
    profile: Profile, results: Path, method: str, steps: int
) -> None:
    """The last step's query loss, differentiated through the whole trajectory."""
    run = Run("sine", "sine", method, "first", 0)
    learner = Learner.of(profile, run)
    flat, _ = load_tensors(results / run.folder / "weights.safetensors")
    meta = {name: leaf.requires_grad_() for name, leaf in below("best", flat).items()}
    family = build_families(profile, profile.experiment("sine"), ["sine"], results)["sine"]
    random = generator("vanishing", "sine", 0)
    tasks = family.sample(profile.theory.vanishing.tasks, random, "train")
    params = learner.start(meta, family, profile.theory.vanishing.tasks, random)
    params = {name: leaf.requires_grad_() for name, leaf in params.items()}
    tuner = learner.tuner(meta)
    state = tuner.start(params)
    for _ in range(steps):
        grads = value_and_grad(family, params, tasks.support, create_graph=True)[1]
        state, params = tuner.step(state, params, grads)
    loss = family.loss(params, tasks.query).mean()
    grads = torch.autograd.grad(loss, list(meta.values()))
    expected = float(torch.cat([leaf.flatten() for leaf in grads]).norm())
    (found,) = [
        row[VALUE] for row in rows(profile, results) if (row[METHOD], row[STEPS]) == (method, steps)
    ]
    # float32: the same derivatives through another graph, a few steps of rounding.
    assert found == pytest.approx(expected, rel=1e-4)


def test_unrolled_looks_at_the_last_of_k_steps_through_everything(profile: Profile) -> None:
    for method in ("lft", "maml"):
        learner = unrolled(Learner.of(profile, Run("sine", "sine", method, "first", 0)), 7)
        assert learner.plan.segment == learner.plan.steps == 7
        assert learner.plan.estimator == "exact"
        assert learner.experiment.training.step_weights == "final"


def test_trajectories_that_are_not_finite_are_left_out(
    profile: Profile, results: Path, tmp_path: Path
) -> None:
    for method in ("lft", "maml"):
        run = Run("sine", "sine", method, "first", 0)
        flat, info = load_tensors(results / run.folder / "weights.safetensors")
        if method == "maml":
            flat = {name: leaf * torch.inf for name, leaf in flat.items()}
        save_tensors(tmp_path / run.folder / "weights.safetensors", flat, info)
    assert {row[METHOD] for row in rows(profile, tmp_path)} == {"lft"}


def test_absent_weights_are_one_line(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weights\.safetensors is missing"):
        rows(profile, tmp_path)
