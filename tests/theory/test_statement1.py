"""Statement 1: the paper's recursion, autograd and finite differences give one meta-gradient.

All in float64. The tasks are those of the paper: sine regression, an MLP classifying images and
perturbations of images that fool a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from closed_forms import LeastSquares
from tiny import experiment_settings, tiny_images
from torch import Tensor

from lft.config import (
    AttackFamily,
    ClassificationFamily,
    Experiment,
    Order,
    SineFamily,
    ZerothOrderSettings,
)
from lft.meta.estimators import meta_gradient
from lft.meta.estimators.base import step_weights
from lft.meta.learner import Learner
from lft.methods import METHODS
from lft.seeding import generator
from lft.tasks.attack import Attack
from lft.tasks.base import TaskFamily
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.tasks.victim import LeNet5
from lft.theory.statement1 import DifferentiableOnce, Instance, recursion
from lft.types import Batch, Params

Weights = Literal["uniform", "linear", "final"]

MARGINS: dict[str, Literal["probability", "log_probability", "logit"]] = {
    "attack": "log_probability",
    "attack on logits": "logit",
    "attack on probabilities": "probability",
}

pytestmark = pytest.mark.usefixtures("float64")


def learner(
    order: Order, steps: int, second_order: str, weights: Weights = "uniform", layers: int = 1
) -> Learner:
    """LFT with three hidden units, and one segment of K steps."""
    settings = experiment_settings(
        "sine", steps=steps, segment=steps, estimator=second_order, step_weights=weights
    )
    finetuner = settings.finetuner.model_copy(update={"layers": layers})
    changed: Experiment = settings.model_copy(update={"finetuner": finetuner})
    return Learner(METHODS["lft"], changed, order, "torch")


def family(name: str) -> TaskFamily:
    """A small family: sine, classification, or an attack named after its margin."""
    if name == "sine":
        return Sine(SineFamily(support=4, query=5, hidden=(4,)))
    if name == "classification":
        images = tiny_images(1, 12)
        settings = ClassificationFamily(source="x", net="mlp", support=2, query=3, widths=(4,))
        return Classification(settings, images, Pools(images, "disjoint", 0.2))
    images = tiny_images(1, 28)
    victim = LeNet5((1, 28, 28), 3).double().requires_grad_(False)
    for index, weight in enumerate(victim.parameters()):
        # Large enough for δ to change the scores.
        weight.copy_(0.2 * torch.randn(weight.shape, generator=generator("victim", index)))
    return Attack(
        AttackFamily(source="x", margin=MARGINS[name], only_correct=False),
        victim,
        Pools(images, "disjoint", 0.2),
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
    exact = training.estimator == "exact"
    meta = moved(rule, tasks)
    return recursion(rule, meta, tasks, batch, start, random, weights, second_order=exact)


def distance(found: Tensor, expected: Tensor) -> float:
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


MODES = ("dropped", "exact")

LEAST = [("sine", 0.001), ("classification", 0.001), ("attack on probabilities", 0.01)]

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
    ("classification", 20, "uniform"),
    ("attack", 1, "linear"),
    ("attack", 5, "uniform"),
    ("attack", 5, "final"),
]


@pytest.mark.parametrize("second_order", MODES)
@pytest.mark.parametrize("order", ["first", "zeroth"])
@pytest.mark.parametrize(("name", "steps", "weights"), CASES)
def test_the_recursion_is_the_meta_gradient(
    name: str, steps: int, weights: Weights, order: Order, second_order: str
) -> None:
    rule = learner(order, steps, second_order, weights)
    # Two orders of multiplying the same Jacobians: 20 steps multiply a rounding of 1e-16 by the
    # condition of their product, and by 1/μ = 1000 for differences of losses.
    assert distance(by_recursion(rule, name), by_autograd(rule, name)) < 1e-9


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["first", "zeroth"])
def test_the_recursion_is_the_meta_gradient_of_a_long_attack(order: Order, mode: str) -> None:
    rule = learner(order, 20, mode, "final")
    zeroth = ZerothOrderSettings(mu=0.1, directions=3)
    rule = replace(rule, experiment=rule.experiment.model_copy(update={"zeroth_order": zeroth}))
    # As above. The loss has kinks, which make the estimate's derivative as large as 1/μ; with
    # μ = 0.001 a change of φ in its last digit changes this meta-gradient by 1e-5.
    assert distance(by_recursion(rule, "attack"), by_autograd(rule, "attack")) < 1e-9


def test_the_recursion_serves_a_deeper_network() -> None:
    """Two layers: a coordinate's state has twice the entries."""
    rule = learner("first", 5, "exact", layers=2)
    assert distance(by_recursion(rule, "sine"), by_autograd(rule, "sine")) < 1e-9  # as above


def test_the_recursion_serves_an_attack_with_a_hessian() -> None:
    rule = learner("first", 3, "exact")
    name = "attack on probabilities"
    assert distance(by_recursion(rule, name), by_autograd(rule, name)) < 1e-9  # as above


def outer_loss(rule: Learner, meta: Params, tasks: TaskFamily) -> float:
    """Σ_k w_k f(θ⁽ᵏ⁾; D^val), eq. 4, by a plain loop."""
    batch = tasks.sample(1, generator("task"), "train")
    random = generator("run")
    params = tasks.init(1, random)
    tuner, gradient = rule.tuner(meta), rule.gradient(random)
    state, total = tuner.start(params), 0.0
    training = rule.experiment.training
    for weight in step_weights(training.step_weights, training.segment):
        state, params = tuner.step(state, params, gradient(tasks, params, batch.support))
        total += weight * float(tasks.loss(params, batch.query))
    return total


def directions(meta: Params) -> list[Params]:
    """A random direction in each tensor of φ, the others fixed."""
    return [
        {name: torch.randn(leaf.shape, generator=generator("direction", name))}
        for name, leaf in meta.items()
    ]


@torch.no_grad()
def by_differences(rule: Learner, name: str) -> Tensor:
    """Slopes of the outer loss along :func:`directions`, by fourth-order central differences.

    log|g| passes near zeros of g, so the loss curves within 1e-5 of φ and its kinks are as close: h
    is as small as rounding lets it be. A loss good to 1e-16, or to 1e-13 where differences of
    losses over μ = 1e-3 are fed in, leaves 1e-13 / h ≈ 3e-8, so 1e-6 is claimed.
    """
    h = 3e-6
    tasks = family(name)
    meta = moved(rule, tasks)

    def loss(direction: Params, h: float) -> float:
        step = {name: meta[name] + h * leaf for name, leaf in direction.items()}
        return outer_loss(rule, meta | step, tasks)

    return torch.tensor(
        [
            (8 * (loss(d, h) - loss(d, -h)) - (loss(d, 2 * h) - loss(d, -2 * h))) / (12 * h)
            for d in directions(meta)
        ]
    )


@pytest.mark.parametrize("order", ["first", "zeroth"])
@pytest.mark.parametrize(
    ("name", "steps", "weights"),
    [("sine", 5, "linear"), ("classification", 3, "uniform"), ("attack", 2, "uniform")],
)
def test_the_recursion_is_the_slope_of_the_outer_loss(
    name: str, steps: int, weights: Weights, order: Order
) -> None:
    rule = learner(order, steps, "exact", weights)
    meta = moved(rule, family(name))
    pieces = by_recursion(rule, name).split([leaf.numel() for leaf in meta.values()])
    found = torch.stack(
        [
            piece @ vector(direction)
            for piece, direction in zip(pieces, directions(meta), strict=True)
        ]
    )
    assert distance(found, by_differences(rule, name)) < 1e-6


# Relative to the whole gradient, and well below what is found at these φ and tasks.
@pytest.mark.parametrize(("name", "least"), LEAST)
def test_dropping_second_order_terms_changes_the_meta_gradient(
    name: str, least: float, record_property: Callable[[str, object], None]
) -> None:
    dropped, exact = (by_autograd(learner("first", 5, mode), name) for mode in MODES)
    amount = distance(dropped, exact)
    record_property("relative difference of dropped to exact", amount)
    print(f"{name}: dropping second-order terms changes the meta-gradient by {amount:.1%}")
    assert amount > least


def test_margins_of_scores_have_no_second_order_terms() -> None:
    """log p_y − log p_c = z_y − z_c, and a ReLU network's logits are piecewise linear in δ."""
    for name in ("attack", "attack on logits"):
        dropped, exact = (by_autograd(learner("first", 3, mode), name) for mode in MODES)
        assert distance(dropped, exact) < 1e-9  # the tolerance of equal derivatives above


def test_the_order_of_derivatives_is_found() -> None:
    """Dropped, or with zeroth-order input, the first is enough; else the Hessian is asked for."""
    for order, mode, expected in (
        ("first", "exact", 2), ("first", "dropped", 1), ("zeroth", "exact", 1),
    ):  # fmt: skip
        rule = learner(order, 3, mode)  # type: ignore[arg-type]
        instance = Instance.draw(rule, family("sine"), generator("instance"))
        assert instance.derivative_order() == expected
        once = instance.by_autograd(DifferentiableOnce(instance.family)) if expected == 1 else None
        if once is not None:
            # The same derivatives; the zeroth-order estimate divides rounding by μ = 0.001.
            assert distance(once, instance.by_autograd(instance.family)) < 1e-9


class Loss(torch.autograd.Function):
    """1/(2n) Σ_j (x_j · θ − y_j)², whose gradient refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(theta, x, y)
        return (torch.einsum("bnd,bd->bn", x, theta) - y).square().mean(1) / 2

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        return Slope.apply(slopes[0], *ctx.saved_tensors), None, None


class Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, slope: Tensor, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        errors = torch.einsum("bnd,bd->bn", x, theta) - y
        return slope[:, None] * torch.einsum("bn,bnd->bd", errors, x) / x.shape[1]

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError("a second derivative of the loss was asked for")


class LeastSquaresOnce(LeastSquares):
    def loss(self, params: Params, batch: Batch) -> Tensor:
        loss: Tensor = Loss.apply(self.vector(params), batch.x, batch.y)
        return loss


def gradient_on(tasks: TaskFamily, order: Order) -> Tensor:
    rule = learner(order, 3, "exact")
    batch = tasks.sample(2, generator("task"), "train")
    return vector(
        meta_gradient(rule, moved(rule, tasks), tasks, batch, None, generator("run")).grads
    )


def test_zeroth_order_input_needs_no_second_derivative_of_the_loss() -> None:
    found = gradient_on(LeastSquaresOnce(), "zeroth")
    # The same derivative; 1e-16 of the losses, times 1/μ = 1000, over three steps.
    assert distance(found, gradient_on(LeastSquares(), "zeroth")) < 1e-9


def test_first_order_input_needs_second_derivatives_of_the_loss() -> None:
    """So that the test above cannot pass for want of a loss that refuses."""
    with pytest.raises(RuntimeError, match="second derivative"):
        gradient_on(LeastSquaresOnce(), "first")
