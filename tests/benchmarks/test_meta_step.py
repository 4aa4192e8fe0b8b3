"""LFT's meta-gradient of one segment, on attacks and on few-shot CNNs, against the usual way.

Ten tasks, 20 steps, an LSTM of hidden size 10, second-order terms dropped. Every competitor
computes the mean query loss along the segment and its gradient in the LSTM's weights; both are
compared before anything is timed. All run on one core.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tiny import tiny_images
from torch import Tensor

from lft.config import AttackFamily, ClassificationFamily, load_profile
from lft.finetuners.lstm import preprocess
from lft.kernels.build import Kernel
from lft.meta.adapt import Point
from lft.meta.estimators import Progress, meta_gradient
from lft.meta.gradients import value_and_grad
from lft.meta.learner import Learner
from lft.seeding import generator
from lft.tasks.attack import Attack
from lft.tasks.base import TaskFamily
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.victim import LeNet5
from lft.types import Batch, Params, TaskBatch, flatten, unflatten

TASKS, STEPS = 10, 20
SHAPE = (3, 32, 32)
Result = tuple[float, Params]


class Problem(NamedTuple):
    """A family on native kernels and on PyTorch alone, tasks, θ⁽⁰⁾ and φ."""

    families: dict[Kernel, TaskFamily]
    tasks: TaskBatch
    start: Params
    weights: Params


@functools.cache
def learner(kernel: Kernel) -> Learner:
    experiment = load_profile("quick").experiment("attack").for_method("lft")
    training = experiment.training.model_copy(update={"steps": STEPS, "segment": STEPS})
    experiment = experiment.model_copy(update={"training": training})
    return Learner(experiment.base_method("lft"), experiment, kernel=kernel)


def attack(kernel: Kernel) -> TaskFamily:
    victim = LeNet5(SHAPE, 3, kernel)
    victim.initialise(0)
    settings = AttackFamily(source="tiny", classes=2, support=2, query=2, only_correct=False)
    return Attack(settings, victim.requires_grad_(False).eval(), Pools(images(), "disjoint", 0.5))


def cnn(kernel: Kernel) -> TaskFamily:
    settings = ClassificationFamily(
        source="tiny", net="cnn", ways=2, support=5, query=5, widths=(16, 16, 16, 16)
    )
    return Classification(settings, images(), Pools(images(), "disjoint", 0.5), kernel)


@functools.cache
def images():
    return tiny_images(*SHAPE[:2])


@functools.cache
def problem(family: Callable[[Kernel], TaskFamily]) -> Problem:
    families: dict[Kernel, TaskFamily] = {kernel: family(kernel) for kernel in ("auto", "torch")}
    tasks = families["auto"].sample(TASKS, generator("tasks"), "train")
    start = families["auto"].init(TASKS, generator("start"))
    weights = learner("auto").initial(families["auto"], generator("weights"))
    return Problem(families, tasks, start, weights)


def native_kernels(case: Problem) -> Result:
    """This package."""
    return _package(case, "auto")


def plain(case: Problem) -> Result:
    """This package without its native kernels: all tasks in one program."""
    return _package(case, "torch")


def _package(case: Problem, kernel: Kernel) -> Result:
    rule = learner(kernel)
    start = Progress(0, Point(case.start, rule.tuner(case.weights).start(case.start)))
    segment = meta_gradient(
        rule, case.weights, case.families[kernel], case.tasks, start, generator("unused")
    )
    return segment.loss.item(), segment.grads


def loop(case: Problem) -> Result:
    """One task after the other, ``nn.LSTMCell`` and autograd through the unrolled steps."""
    settings, family = learner("torch").experiment.finetuner, case.families["torch"]
    weights = {k: v.clone().requires_grad_() for k, v in case.weights.items()}
    cell = torch.nn.LSTMCell(2, settings.hidden)
    parameters = {
        "weight_ih": weights["lstm/layer0.w_ih"],
        "weight_hh": weights["lstm/layer0.w_hh"],
        "bias_ih": weights["lstm/layer0.b"],
        "bias_hh": torch.zeros(4 * settings.hidden),
    }
    total = 0.0
    for task in range(TASKS):
        one = slice(task, task + 1)
        support, query = (Batch(part.x[one], part.y[one]) for part in case.tasks)
        params = {name: leaf[one] for name, leaf in case.start.items()}
        n = sum(leaf.numel() for leaf in params.values())
        state = (torch.zeros(n, settings.hidden),) * 2
        losses = []
        for _ in range(STEPS):
            _, grads = value_and_grad(family, params, support)
            x = preprocess(flatten(grads), settings.preprocess_p).T
            state = torch.func.functional_call(cell, parameters, (x, state))
            update = state[0] @ weights["lstm/out.w"] + weights["lstm/out.b"]
            moved = unflatten(settings.output_scale * update, params)
            params = {name: params[name] - moved[name] for name in params}
            losses.append(family.loss(params, query).mean())
        loss = sum(losses, torch.zeros(())) / (STEPS * TASKS)
        loss.backward()
        total += loss.item()
    return total, {name: _gradient(leaf) for name, leaf in weights.items()}


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


@pytest.fixture(autouse=True)
def as_in_a_job() -> Iterator[None]:
    """One thread, denormal numbers flushed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("competitor", [native_kernels, plain, loop])
@pytest.mark.parametrize("family", [attack, cnn])
def test_meta_gradient(
    benchmark: BenchmarkFixture,
    family: Callable[[Kernel], TaskFamily],
    competitor: Callable[[Problem], Result],
) -> None:
    case = problem(family)
    loss, grads = competitor(case)
    expected_loss, expected = plain(case)
    # float32: what rounding does to the gradients grows along the trajectory.
    assert loss == pytest.approx(expected_loss, rel=1e-3)
    for name, leaf in expected.items():
        assert (grads[name] - leaf).norm() <= 1e-2 * leaf.norm()
    benchmark.group = f"LFT's meta-gradient, {TASKS} tasks x {STEPS} steps, {family.__name__}"
    benchmark.pedantic(competitor, args=(case,), rounds=3 if competitor is loop else 10)
