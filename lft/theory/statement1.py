"""Statement 1: the meta-gradient by the paper's explicit recursion (eqs. 7-9).

With total derivatives of θ⁽ᵏ⁾ = θ⁽ᵏ⁻¹⁾ − Δ⁽ᵏ⁾ and (Δ⁽ᵏ⁾, h⁽ᵏ⁾) = m_φ(g(θ⁽ᵏ⁻¹⁾), h⁽ᵏ⁻¹⁾):

    G_k = G_{k−1} − [∂Δ/∂φ + ∂Δ/∂g · ∂g/∂θ · G_{k−1} + ∂Δ/∂h · H_{k−1}]
    H_k =            ∂h/∂φ + ∂h/∂g · ∂g/∂θ · G_{k−1} + ∂h/∂h · H_{k−1}

with G_0 = 0 and H_0 = 0, and ∇_φ = Σ_k w_k G_kᵀ ∇_θ f(θ⁽ᵏ⁾; D^val). The derivatives of a
coordinate-wise m are block-diagonal, so they are formed per coordinate, with s state entries each.
The recursion checks the production path; it is too slow for training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.func import jacrev, vmap

from lft.config import Profile
from lft.meta.adapt import Point
from lft.meta.estimators import meta_gradient
from lft.meta.estimators.base import Progress, step_weights
from lft.meta.gradients import value_and_grad
from lft.meta.learner import Learner
from lft.methods import get_method
from lft.seeding import generator
from lft.tasks.base import Phase, TaskFamily
from lft.theory.family import measured_family
from lft.types import Batch, Params, TaskBatch, flatten, unflatten


def recursion(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    tasks: TaskBatch,
    start: Params,
    random: Generator,
    weights: Sequence[float],
    *,
    second_order: bool,
) -> Tensor:
    """Compute ∇_φ Σ_k w_k f(θ⁽ᵏ⁾; D^val) of one task by the recursion of eqs. 8 and 9.

    Args:
        learner: method with a meta-learned fine-tuner.
        meta: φ, without other meta-parameters.
        family: defines the loss.
        tasks: one task (B = 1).
        start: θ⁽⁰⁾, each (1, …).
        random: draws zeroth-order directions, one set per step.
        weights: w_1 … w_K.
        second_order: keep ∂g/∂θ, the Hessian for first-order input; otherwise take it as 0.

    Returns:
        The gradient, flattened in the order of ``meta``, (|φ|,).
    """
    phi = torch.cat([leaf.flatten() for leaf in meta.values()])
    theta = flatten(start)
    h = _by_coordinate(learner.tuner(meta).start(start))
    gradient = learner.gradient(random, create_graph=True)
    shape = learner.tuner(meta).start({"x": theta[:1, None]}).shape

    def m(phi: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return Δ () and h' (s,) of eq. 3 for one coordinate, from g () and h (s,)."""
        tuner = learner.tuner(_split(phi, meta))
        zero, one = {"x": torch.zeros_like(g).view(1, 1)}, {"x": g.view(1, 1)}
        state, params = tuner.step(h.view(shape), zero, one)
        return -params["x"].view(()), state.reshape(-1)

    def g_of(theta: Tensor) -> Tensor:
        return flatten(gradient(family, unflatten(theta, start), tasks.support))

    each_coordinate = vmap(jacrev(m, argnums=(0, 1, 2)), in_dims=(None, 0, 0))
    g_total = theta.new_zeros(len(theta), len(phi))
    h_total = theta.new_zeros(*h.shape, len(phi))
    result = torch.zeros_like(phi)
    for weight in weights:
        theta = theta.detach().requires_grad_()
        g = g_of(theta)
        through_g = torch.zeros_like(g_total)
        if second_order:
            through_g = _jacobian_times(g, theta, g_total)
        g = g.detach()
        with torch.no_grad():
            (d_phi, d_g, d_h), (e_phi, e_g, e_h) = each_coordinate(phi, g, h)
            update, h = vmap(m, in_dims=(None, 0, 0))(phi, g, h)
            theta = theta - update
            g_total = g_total - (
                d_phi + d_g[:, None] * through_g + torch.einsum("ps,psn->pn", d_h, h_total)
            )
            h_total = (
                e_phi
                + e_g[:, :, None] * through_g[:, None]
                + torch.einsum("pst,ptn->psn", e_h, h_total)
            )
        outer = value_and_grad(family, unflatten(theta, start), tasks.query)[1]
        result = result + weight * (g_total.T @ flatten(outer))
    return result


def _by_coordinate(state: Tensor) -> Tensor:
    """Reshape a state from (2, layers, hidden, N) to (N, s)."""
    return state.flatten(0, 2).T


def _jacobian_times(g: Tensor, theta: Tensor, matrix: Tensor) -> Tensor:
    """Compute ∂g/∂θ · matrix, column by column, by double reverse-mode differentiation.

    If f is piecewise linear, as in attacks on logits, ∂g/∂θ may be 0 and have no graph.
    """
    u = torch.zeros_like(g, requires_grad=True)
    (transposed,) = torch.autograd.grad(g, theta, u, create_graph=True, materialize_grads=True)
    if not transposed.requires_grad:
        return torch.zeros_like(matrix)
    columns = [
        torch.autograd.grad(transposed, u, column, retain_graph=True, materialize_grads=True)[0]
        for column in matrix.T
    ]
    return torch.stack(columns, dim=1)


def measure(
    profile: Profile, experiment: str, seed: int, results: Path
) -> Iterator[tuple[Any, ...]]:
    """Check Statement 1 in float64 on small instances; yield rows of THEORY_COLUMNS.

    An instance is one task of the experiment's first family under a random φ of hidden size 3, with
    second-order terms kept or dropped. ``statement1_error`` is the relative difference between the
    recursion and autograd. ``derivative_order`` is the highest derivative of f that the
    meta-gradient takes.

    Args:
        profile: settings.
        experiment: name of the experiment.
        seed: names the random draws.
        results: the profile's result folder.
    """
    settings = profile.experiment(experiment)
    name, family = measured_family(profile, experiment, seed, results)
    family = family.double()
    steps = 3
    for order in settings.orders:
        for second_order in ("exact", "dropped"):
            training = settings.training.model_copy(
                update={"steps": steps, "segment": steps, "estimator": second_order}
            )
            finetuner = settings.tuner(get_method("lft")).model_copy(update={"hidden": 3})
            small = settings.model_copy(update={"training": training, "finetuner": finetuner})
            learner = Learner(get_method("lft"), small, order, "torch")
            instance = Instance.draw(learner, family, generator("statement 1", experiment, seed))
            values = {
                "statement1_error": instance.relative_error(),
                "derivative_order": instance.derivative_order(),
            }
            method = f"lft {order} {second_order}"
            for quantity, value in values.items():
                yield (experiment, "initial", quantity, method, seed, steps, 0, 0, name, value)


class Instance(NamedTuple):
    """One task (B = 1) with its start, under a random φ, in float64.

    Attributes:
        learner: method and settings.
        family: family of the task.
        meta: φ.
        tasks: the task.
        start: θ⁽⁰⁾, each (1, …).
        random: draws zeroth-order directions.
    """

    learner: Learner
    family: TaskFamily
    meta: Params
    tasks: TaskBatch
    start: Params
    random: Generator

    @classmethod
    def draw(cls, learner: Learner, family: TaskFamily, random: Generator) -> Instance:
        """Draw φ, then the task, then its start."""
        meta = {k: v.double() for k, v in learner.initial(family, random).items()}
        tasks = family.sample(1, random, "train")
        start = family.init(1, random)
        return cls(learner, family, meta, tasks, start, random)

    def by_autograd(self, family: TaskFamily) -> Tensor:
        """Compute the meta-gradient (|φ|,) on the path that meta-training uses."""
        point = Point(self.start, self.learner.tuner(self.meta).start(self.start))
        random = self.random.clone_state()
        grads = meta_gradient(
            self.learner, self.meta, family, self.tasks, Progress(0, point), random
        ).grads
        return torch.cat([grads[name].flatten() for name in self.meta])

    def relative_error(self) -> float:
        """Return ‖recursion − autograd‖ / ‖autograd‖."""
        plan = self.learner.plan
        weights = step_weights(self.learner.experiment.training.step_weights, plan.segment)
        found = recursion(
            *(self.learner, self.meta, self.family, self.tasks, self.start),
            *(self.random.clone_state(), weights),
            second_order=plan.estimator == "exact",
        )
        expected = self.by_autograd(self.family)
        return float((found - expected).norm() / expected.norm())

    def derivative_order(self) -> int:
        """Return 1 if the meta-gradient needs no second derivative of the loss, else 2."""
        try:
            self.by_autograd(DifferentiableOnce(self.family))
        except _SecondDerivative:
            return 2
        return 1


class DifferentiableOnce(TaskFamily):
    """A family whose loss raises an exception when differentiated twice."""

    def __init__(self, family: TaskFamily) -> None:
        self.family = family
        self.settings, self.dtype = family.settings, family.dtype

    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        """Draw tasks from the wrapped family."""
        return self.family.sample(n_tasks, generator, phase)

    def init(self, n_tasks: int, generator: Generator) -> Params:
        """Draw θ⁽⁰⁾ from the wrapped family."""
        return self.family.init(n_tasks, generator)

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        """Return the metrics of the wrapped family."""
        return self.family.metrics(params, batch)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Return f(θ; D) of every task, (B,)."""
        losses: Tensor = _Loss.apply(self.family, batch, tuple(params), *params.values())
        return losses


class _SecondDerivative(Exception):
    """The caller asked for a second derivative."""


class _Loss(torch.autograd.Function):
    """The losses (B,) of B tasks, with gradients computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, family: TaskFamily, batch: Batch, names: tuple[str, ...], *leaves: Tensor
    ) -> Tensor:
        losses, grads = value_and_grad(family, dict(zip(names, leaves, strict=True)), batch)
        ctx.save_for_backward(*leaves, *(grads[name] for name in names))
        return losses

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *_Slopes.apply(*slopes, *ctx.saved_tensors)


class _Slopes(torch.autograd.Function):
    """The first derivative; it depends on the leaves, so its own derivative raises."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, *leaves_and_grads: Tensor) -> tuple[Tensor, ...]:
        grads = leaves_and_grads[len(leaves_and_grads) // 2 :]
        return tuple(slope.view(-1, *[1] * (g.dim() - 1)) * g for g in grads)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise _SecondDerivative


def _split(phi: Tensor, meta: Params) -> Params:
    pieces = phi.split([leaf.numel() for leaf in meta.values()])
    return {
        name: piece.view_as(leaf) for (name, leaf), piece in zip(meta.items(), pieces, strict=True)
    }
