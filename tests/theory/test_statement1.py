"""Statement 1: the paper's recursion, autograd and finite differences give one meta-gradient.

All in float64. The tasks are those of the paper: sine regression, an MLP classifying images and
perturbations of images that fool a network.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from closed_forms import LeastSquares
from tiny import experiment_settings, profile_values, tiny_images
from torch import Tensor
from torch.autograd.function import once_differentiable

from lft.config import AttackFamily, ClassificationFamily, Experiment, Order, SineFamily
from lft.learner import Learner
from lft.metagradient import meta_gradient, step_weights
from lft.methods import METHODS
from lft.seeding import generator
from lft.tasks.attack import Attack
from lft.tasks.base import TaskFamily
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.tasks.victim import LeNet5
from lft.theory.statement1 import recursion
from lft.types import Batch, Params

Weights = Literal["uniform", "linear", "final"]

pytestmark = pytest.mark.usefixtures("float64")


def learner(
    order: Order, steps: int, second_order: str, weights: Weights = "uniform", layers: int = 1
) -> Learner:
    """LFT with three hidden units, and one segment of K steps."""
    settings = experiment_settings(
        "sine", steps=steps, segment=steps, second_order=second_order, step_weights=weights
    )
    finetuner = settings.finetuner.model_copy(update={"layers": layers})
    changed: Experiment = settings.model_copy(update={"finetuner": finetuner})
    return Learner(METHODS["lft"], changed, order, "torch")


def family(name: str) -> TaskFamily:
    if name == "sine":
        return Sine(SineFamily(support=4, query=5, hidden=(4,)))
    if name == "classification":
        images = tiny_images(1, 12)
        settings = ClassificationFamily(source="x", net="mlp", support=2, query=3, widths=(4,))
        return Classification(settings, images, Pools(images, "disjoint", 0.2))
    images = tiny_images(1, 28)
    victim = LeNet5((1, 28, 28), 3).requires_grad_(False)
    for index, weight in enumerate(victim.parameters()):
        # Large enough for δ to change the scores.
        weight.copy_(0.2 * torch.randn(weight.shape, generator=generator("victim", index)))
    return Attack(
        AttackFamily(source="x", only_correct=False), victim, Pools(images, "disjoint", 0.2)
    )


def moved(rule: Learner, tasks: TaskFamily) -> Params:
    """φ away from its initial output layer, a tenth of the others, and that layer's zero bias."""
    meta = rule.initial(tasks, generator("phi"))
    return meta | {"lstm/out.w": meta["lstm/out.w"] * 10, "lstm/out.b": torch.tensor(0.2)}


def vector(meta: Params) -> Tensor:
    return torch.cat([leaf.flatten() for leaf in meta.values()])


def by_autograd(rule: Learner, name: str) -> Tensor:
    """The meta-gradient of one task by the production path."""
    tasks = family(name)
    batch = tasks.sample(1, generator("task"), "train")
    segment = meta_gradient(rule, moved(rule, tasks), tasks, batch, None, generator("run"))
    return vector(segment.grads)


def by_recursion(rule: Learner, name: str) -> Tensor:
    """The same by eqs. 8 and 9."""
    tasks = family(name)
    batch = tasks.sample(1, generator("task"), "train")
    random = generator("run")
    start = tasks.init(1, random)
    training = rule.experiment.training
    weights = step_weights(training.step_weights, training.segment)
    exact = training.second_order == "exact"
    meta = moved(rule, tasks)
    return recursion(rule, meta, tasks, batch, start, random, weights, second_order=exact)


def distance(found: Tensor, expected: Tensor) -> float:
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


CASES: list[tuple[str, int, Weights]] = [
    ("sine", 1, "uniform"),
    ("sine", 5, "linear"),
    ("sine", 5, "final"),
    ("sine", 20, "uniform"),
    ("sine", 20, "linear"),
    ("sine", 20, "final"),
    ("classification", 1, "final"),
    ("classification", 5, "uniform"),
    ("classification", 5, "linear"),
    ("attack", 1, "linear"),
    ("attack", 5, "uniform"),
    ("attack", 5, "final"),
]


@pytest.mark.parametrize("second_order", ["exact", "dropped"])
@pytest.mark.parametrize("order", ["first", "zeroth"])
@pytest.mark.parametrize(("name", "steps", "weights"), CASES)
def test_the_recursion_is_the_meta_gradient(
    name: str, steps: int, weights: Weights, order: Order, second_order: str
) -> None:
    rule = learner(order, steps, second_order, weights)
    # Two orders of multiplying the same Jacobians: 20 steps multiply a rounding of 1e-16 by the
    # condition of their product, and by 1/μ = 1000 for differences of losses.
    assert distance(by_recursion(rule, name), by_autograd(rule, name)) < 1e-9
