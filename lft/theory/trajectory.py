"""Fine-tuning trajectories, and meta-gradients along them (eq. 7).

Second-order terms are dropped: the fine-tuner's inputs are constants, and they alone determine
G_k = ∂θ⁽ᵏ⁾/∂φ.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lft.meta.adapt import Point, adapt
from lft.meta.estimators.dropped import inputs_to_meta
from lft.meta.gradients import FirstOrder, value_and_grad
from lft.meta.learner import Learner
from lft.tasks.base import Objective, TaskFamily
from lft.types import Batch, Params, flatten


class Trajectory(NamedTuple):
    """Fine-tuning trajectories of B tasks.

    Attributes:
        points: θ⁽⁰⁾ … θ⁽ᴷ⁾, each (B, …).
        gradients: ∇f(θ⁽ᵏ⁾; D_tr) for k = 0 … K, (K + 1, B, P); the first K are the fine-tuner's
            inputs.
    """

    points: list[Params]
    gradients: Tensor


def trajectory(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    start: Params,
    support: Batch,
    steps: int,
) -> Trajectory:
    """Fine-tune B tasks and record points and gradients.

    Args:
        learner: method and settings.
        meta: meta-parameters.
        family: defines the loss.
        start: θ⁽⁰⁾, each (B, …).
        support: D_tr of each task, (B, n, …).
        steps: K.
    """
    inner, inputs = FirstOrder(), []

    def gradient(family: Objective, params: Params, batch: Batch) -> Params:
        inputs.append(inner(family, params, batch))
        return inputs[-1]

    with torch.no_grad():
        path = adapt(family, learner.tuner(meta), start, support, steps=steps, gradient=gradient)
        points = [start, *(point.params for point in path)]
    inputs.append(inner(family, points[-1], support))
    return Trajectory(points, torch.stack([by_task(grads) for grads in inputs]))


def gradients(family: TaskFamily, path: Trajectory, batch: Batch) -> Tensor:
    """Compute ∇f(θ⁽ᵏ⁾; ``batch``) for k = 1 … K, (K, B, P)."""
    return torch.stack([by_task(value_and_grad(family, p, batch)[1]) for p in path.points[1:]])


def meta_gradients(learner: Learner, meta: Params, inputs: Tensor, cotangents: Tensor) -> Tensor:
    """Compute Σ_k G_kᵀ c_k of each task.

    Args:
        learner: method and settings.
        meta: meta-parameters φ.
        inputs: gradients fed to the fine-tuner, (K, B, P).
        cotangents: c_1 … c_K, (K, B, P).

    Returns:
        One vector per task, (B, |φ|), on the CPU.
    """
    rows = [
        in_order(pull_back(learner, meta, *pair), meta)
        for pair in zip(inputs.unbind(1), cotangents.unbind(1), strict=True)
    ]
    return torch.stack(rows).cpu()


def pull_back(learner: Learner, meta: Params, inputs: Tensor, cotangents: Tensor) -> Params:
    """Compute Σ_k G_kᵀ c_k of one task, by name of the meta-parameter.

    Args:
        learner: method and settings.
        meta: meta-parameters φ.
        inputs: gradients fed to the fine-tuner, (K, P).
        cotangents: c_1 … c_K, (K, P).
    """
    meta = {name: leaf.detach().requires_grad_() for name, leaf in meta.items()}
    start = _one(torch.zeros_like(inputs[0]))
    point = Point(start, learner.tuner(meta).start(start))
    return inputs_to_meta(learner, meta, point, *(list(map(_one, x)) for x in (inputs, cotangents)))


@torch.no_grad()
def updates(learner: Learner, meta: Params, inputs: Tensor) -> Tensor:
    """Compute the updates Δ⁽¹⁾ … Δ⁽ᴷ⁾ of one task, (K, P), from inputs (K, P)."""
    tuner, zero = learner.tuner(meta), _one(torch.zeros_like(inputs[0]))
    state, found = tuner.start(zero), []
    for gradient in inputs:
        state, moved = tuner.step(state, zero, _one(gradient))
        found.append(-flatten(moved))
    return torch.stack(found)


def by_task(params: Params) -> Tensor:
    """Concatenate the coordinates of each task, (B, P)."""
    return flatten(params).view(len(next(iter(params.values()))), -1)


def in_order(leaves: Params, meta: Params) -> Tensor:
    """Flatten ``leaves`` into one vector (|φ|,), in the order of names in ``meta``."""
    return torch.cat([leaves[name].flatten() for name in meta])


def _one(vector: Tensor) -> Params:
    """Wrap the coordinates (P,) of one task as one parameter, for a coordinate-wise fine-tuner."""
    return {"theta": vector[None]}
