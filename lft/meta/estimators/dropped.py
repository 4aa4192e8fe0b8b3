"""Truncated back-propagation without the ∂g/∂θ term of eq. 8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from lft.finetuners.base import SegmentVJP
from lft.meta.adapt import Point, adapt
from lft.meta.estimators.base import Estimate, Progress, capped, gradient_of, slope, weights
from lft.meta.estimators.exact import begun, detached
from lft.meta.gradients import FirstOrder, Gradient, value_and_grad
from lft.meta.learner import Learner
from lft.tasks.base import Objective, TaskFamily
from lft.types import Batch, Params, TaskBatch, concatenate, flatten


class Dropped:
    """∇_φ Σ_k ⟨v_k, θ⁽ᵏ⁾(φ)⟩ with v_k = w_k ∇_θ f(θ⁽ᵏ⁾; outer data) and inner gradients constant.

    Andrychowicz et al. (2016), sec. 2.1. The trajectory runs without a graph and records the
    fine-tuner's inputs and v_k. The backward pass then needs only the fine-tuner's own graph.
    """

    def __call__(
        self,
        learner: Learner,
        meta: Params,
        family: TaskFamily,
        tasks: TaskBatch,
        state: Progress | None,
        generator: Generator,
    ) -> Estimate:
        """See :class:`lft.meta.estimators.base.Estimator`."""
        meta = {name: leaf.detach().requires_grad_() for name, leaf in meta.items()}
        begin, start = state or begun(learner, meta, family, tasks, generator)
        w = weights(learner, begin)
        record = _Recorder(learner.gradient(generator), tasks)
        point: Point = start
        with torch.no_grad():
            for point in adapt(
                family,
                learner.tuner(meta),
                start,
                tasks.support,
                steps=len(w),
                gradient=record,
            ):
                pass
            record.finish(family, point.params)
        n_tasks, cap = len(tasks.query.x), learner.task_clip
        loss = sum(w_k * capped(f, cap).mean() for w_k, f in zip(w, record.losses, strict=True))
        cotangents = [
            _scaled(grads, w_k / n_tasks, None if cap is None else slope(losses, cap))
            for w_k, losses, grads in zip(w, record.losses, record.outer, strict=True)
        ]
        grads = inputs_to_meta(learner, meta, start, record.inputs, cotangents)
        end = Progress(begin + len(w), detached(point))
        return Estimate(torch.as_tensor(loss), grads, end)


def _scaled(grads: Params, factor: float, per_task: Tensor | None) -> Params:
    """Multiply gradients, each (B, …), by a factor and by a factor per task (B,), if given."""
    scaled = {name: leaf * factor for name, leaf in grads.items()}
    if per_task is None:
        return scaled
    return {
        name: leaf * per_task.view(-1, *[1] * (leaf.dim() - 1)) for name, leaf in scaled.items()
    }


class _Recorder:
    """Feeds the fine-tuner and records the parts of the trajectory that eq. 7 needs.

    The inner loop calls it at θ⁽⁰⁾ … θ⁽ᴷ⁻¹⁾; :meth:`finish` adds θ⁽ᴷ⁾. With first-order gradients,
    it saves a pass in two cases. If support and query have the same size, one pass over 2B tasks
    gives both gradients. If they are the same data (L2O), one pass over B tasks does.

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
        """Record the outer loss and its gradient at the last point."""
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
    """Differentiate Σ_k ⟨v_k, θ⁽ᵏ⁾⟩ in the meta-parameters, with constant fine-tuner inputs.

    Args:
        learner: method and settings.
        meta: meta-parameters that require gradients.
        start: θ⁽⁰⁾ and the fine-tuner's state.
        inputs: g of steps 1 … K, each (B, …).
        cotangents: v_1 … v_K, each (B, …).

    Returns:
        The gradient, by name of the meta-parameter.
    """
    tuner = learner.tuner(meta)
    if isinstance(tuner, SegmentVJP) and not learner.method.learns_initialisation:
        # θ⁽ᵏ⁾ = θ⁽⁰⁾ − Σ_{j≤k} Δ⁽ʲ⁾, so the cotangent of Δ⁽ʲ⁾ is −Σ_{k≥j} v_k.
        stacked = torch.stack([flatten(v) for v in cotangents])
        of_updates = -stacked.flip(0).cumsum(0).flip(0)
        grads = tuner.segment_vjp(
            start.state, torch.stack([flatten(g) for g in inputs]), of_updates
        )
        if grads is not None:
            return {f"{learner.method.phi}/{name}": leaf for name, leaf in grads.items()}
    state, params = start.state, start.params
    total = torch.zeros(())
    for grads_in, v in zip(inputs, cotangents, strict=True):
        state, params = tuner.step(state, params, grads_in)
        total = total + sum((v[name] * params[name]).sum() for name in params)
    return gradient_of(total, meta)
