"""Meta-gradients of one segment of a fine-tuning trajectory (eqs. 4 and 7-10).

``exact`` differentiates through everything. ``dropped`` treats the inner gradients as constant
inputs of the fine-tuner (the term with ∂g/∂θ of eq. 8 is left out), so only the fine-tuner's own
graph is needed: the trajectory is run without one, remembering the inputs g⁽ᵏ⁻¹⁾ and
v_k = w_k ∇_θ f(θ⁽ᵏ⁾; outer data), and ∇_φ Σ_k ⟨v_k, θ⁽ᵏ⁾(φ)⟩ is taken afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_map_only

from lft.finetuners.base import SegmentVJP
from lft.meta.adapt import Point, adapt
from lft.meta.gradients import FirstOrder, Gradient, value_and_grad
from lft.meta.learner import Learner
from lft.tasks.base import Differentiated, Objective, TaskFamily
from lft.types import Batch, Params, TaskBatch, concatenate, flatten


class Segment(NamedTuple):
    """Outcome of a segment: weighted outer loss, meta-gradient, and where fine-tuning stands."""

    loss: Tensor
    grads: Params
    end: Point


def step_weights(kind: Literal["uniform", "linear", "final"], steps: int) -> list[float]:
    """w_1 … w_K of eq. 4, scaled to sum to 1: constant, proportional to k, or 1[k = K]."""
    raw = {
        "uniform": [1.0] * steps,
        "linear": [float(k) for k in range(1, steps + 1)],
        "final": [0.0] * (steps - 1) + [1.0],
    }[kind]
    return [weight / sum(raw) for weight in raw]


def meta_gradient(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    tasks: TaskBatch,
    start: Point | None,
    generator: Generator,
) -> Segment:
    """Meta-gradient of one truncated segment of B tasks' trajectories.

    The outer loss is Σ_k w_k (1/B) Σ_i f_i(θ_i⁽ᵏ⁾; outer data), with the query set as outer data,
    or support and query joined for both loops (L2O).

    Args:
        meta: meta-parameters.
        tasks: B tasks.
        start: where the previous segment ended; None at the start of a trajectory.
        generator: draws θ⁽⁰⁾ and zeroth-order directions.
    """
    if learner.method.outer == "joint":
        tasks = tasks.joined()
    meta = {name: leaf.detach().requires_grad_() for name, leaf in meta.items()}
    if start is None:
        params = learner.start(meta, family, tasks.support.x.shape[0], generator)
        start = Point(params, learner.tuner(meta).start(params))
    segment = {"exact": _exact, "dropped": _dropped, "reptile": _reptile}[learner.plan.second_order]
    return segment(learner, meta, family, tasks, start, generator)


def _exact(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    tasks: TaskBatch,
    start: Point,
    generator: Generator,
) -> Segment:
    found = _descend(learner, meta, family, tasks, start)
    if found is not None:
        losses, grads, end = found
        of_init = {f"init/{name}": leaf.mean(0) for name, leaf in grads.items()}
        return Segment(losses.mean(), of_init, Point(end, None))
    points = adapt(
        family,
        learner.tuner(meta),
        start,
        tasks.support,
        steps=learner.plan.segment,
        gradient=learner.gradient(generator, create_graph=True),
    )
    loss, point = torch.zeros(()), start
    for weight, point in zip(_weights(learner), points, strict=True):
        if weight:
            loss = loss + weight * family.loss(point.params, tasks.query).mean()
    return Segment(loss.detach(), _grad(loss, meta), _detached(point))


def _descend(
    learner: Learner, meta: Params, family: TaskFamily, tasks: TaskBatch, start: Point
) -> tuple[Tensor, Params, Params] | None:
    """Gradient descent and its derivative without autograd, where that can be had."""
    if not learner.differentiates_descent:
        return None
    arguments = start.params, tasks, learner.plan.segment, learner.step_size(meta)
    return family.descend(*arguments) if isinstance(family, Differentiated) else None


def _dropped(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    tasks: TaskBatch,
    start: Point,
    generator: Generator,
) -> Segment:
    weights = _weights(learner)
    record = _Recorder(learner.gradient(generator), tasks)
    point = start
    with torch.no_grad():
        for point in adapt(
            family,
            learner.tuner(meta),
            start,
            tasks.support,
            steps=len(weights),
            gradient=record,
        ):
            pass
        record.finish(family, point.params)
    n_tasks = tasks.query.x.shape[0]
    loss = sum(w * losses.mean() for w, losses in zip(weights, record.losses, strict=True))
    cotangents = [
        {name: leaf * (w / n_tasks) for name, leaf in grads.items()}
        for w, grads in zip(weights, record.outer, strict=True)
    ]
    grads = inputs_to_meta(learner, meta, start, record.inputs, cotangents)
    return Segment(torch.as_tensor(loss), grads, _detached(point))


def _reptile(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    tasks: TaskBatch,
    start: Point,
    generator: Generator,
) -> Segment:
    """θ⁽⁰⁾ − θ⁽ᴷ⁾, averaged over tasks, in place of a gradient (Nichol et al., 2018)."""
    with torch.no_grad():
        *_, point = adapt(
            family,
            learner.tuner(meta),
            start,
            tasks.support,
            steps=learner.plan.segment,
            gradient=learner.gradient(generator),
        )
        loss = family.loss(point.params, tasks.query).mean()
        grads = {
            f"init/{name}": (start.params[name] - leaf).mean(0)
            for name, leaf in point.params.items()
        }
    return Segment(loss, grads, _detached(point))


class _Recorder:
    """Feeds the fine-tuner and remembers what eq. 7 needs of the trajectory.

    Called at θ⁽⁰⁾ … θ⁽ᴷ⁻¹⁾ by the inner loop; :meth:`finish` adds θ⁽ᴷ⁾. Where support and query
    have the same size both gradients come from one pass over 2B tasks; where they are the same
    data (L2O), from one pass over B tasks.

    Attributes:
        inputs: g at θ⁽⁰⁾ … θ⁽ᴷ⁻¹⁾.
        outer: gradient of the outer loss at θ⁽¹⁾ … θ⁽ᴷ⁾.
        losses: outer loss (B,) at θ⁽¹⁾ … θ⁽ᴷ⁾.
    """

    def __init__(self, gradient: Gradient, tasks: TaskBatch) -> None:
        self.gradient = gradient
        self.query = tasks.query
        self.same = tasks.support is tasks.query
        paired = isinstance(gradient, FirstOrder) and tasks.support.size == tasks.query.size
        self.stacked = concatenate(*tasks, dim=0) if paired and not self.same else None
        self.inputs: list[Params] = []
        self.outer: list[Params] = []
        self.losses: list[Tensor] = []

    def __call__(self, family: Objective, params: Params, batch: Batch) -> Params:
        first_call = not self.inputs
        if self.stacked is not None:
            twice = {name: torch.cat([leaf, leaf]) for name, leaf in params.items()}
            losses, grads = value_and_grad(family, twice, self.stacked)
            n_tasks = len(losses) // 2
            inner = {name: leaf[:n_tasks] for name, leaf in grads.items()}
            outer = {name: leaf[n_tasks:] for name, leaf in grads.items()}
            losses = losses[n_tasks:]
        elif self.same and isinstance(self.gradient, FirstOrder):
            losses, inner = value_and_grad(family, params, batch)
            outer = inner
        else:
            inner = self.gradient(family, params, batch)
            if not first_call:
                losses, outer = value_and_grad(family, params, self.query)
        self.inputs.append(inner)
        if not first_call:
            self.outer.append(outer)
            self.losses.append(losses)
        return inner

    def finish(self, family: Objective, params: Params) -> None:
        """Outer loss and gradient at the last point."""
        losses, outer = value_and_grad(family, params, self.query)
        self.outer.append(outer)
        self.losses.append(losses)


def inputs_to_meta(
    learner: Learner,
    meta: Params,
    start: Point,
    inputs: Sequence[Params],
    cotangents: Sequence[Params],
) -> Params:
    """∇ Σ_k ⟨v_k, θ⁽ᵏ⁾⟩ in the meta-parameters, the fine-tuner's inputs being constants.

    Args:
        start: θ⁽⁰⁾ and the fine-tuner's state.
        inputs: g fed in at steps 1 … K.
        cotangents: v_1 … v_K.
    """
    tuner = learner.tuner(meta)
    if isinstance(tuner, SegmentVJP) and not learner.method.learns_initialisation:
        # θ⁽ᵏ⁾ = θ⁽⁰⁾ − Σ_{j≤k} Δ⁽ʲ⁾, so the cotangent of Δ⁽ʲ⁾ is −Σ_{k≥j} v_k.
        stacked = torch.stack([flatten(v) for v in cotangents])
        of_updates = -stacked.flip(0).cumsum(0).flip(0)
        fed_in = torch.stack([flatten(g) for g in inputs])
        grads = tuner.segment_vjp(start.state, fed_in, of_updates)
        if grads is not None:
            return {f"{learner.method.phi}/{name}": leaf for name, leaf in grads.items()}
    state, params = start.state, start.params
    total = torch.zeros(())
    for grads_in, v in zip(inputs, cotangents, strict=True):
        state, params = tuner.step(state, params, grads_in)
        total = total + sum((v[name] * params[name]).sum() for name in params)
    return _grad(total, meta)


def _weights(learner: Learner) -> list[float]:
    """w_k of a segment; MAML-like methods look at the last step only (eq. 1)."""
    kind = learner.experiment.training.step_weights if learner.method.learns_finetuner else "final"
    return step_weights(kind, learner.plan.segment)


def _grad(loss: Tensor, meta: Params) -> Params:
    grads = torch.autograd.grad(
        loss, list(meta.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(meta, grads, strict=True))


def _detached(point: Point) -> Point:
    params = {name: leaf.detach() for name, leaf in point.params.items()}
    return Point(params, tree_map_only(Tensor, torch.Tensor.detach, point.state))
