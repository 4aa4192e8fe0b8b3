"""What estimators of the meta-gradient share: the interface, w_k of eq. 4, and capped losses."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from lft.meta.learner import Learner
from lft.tasks.base import TaskFamily
from lft.types import Params, TaskBatch


class Progress(NamedTuple):
    """Where the trajectories of a meta-batch stand.

    Attributes:
        step: fine-tuning steps made.
        at: what the estimator needs to go on: the :class:`lft.meta.adapt.Point` of B tasks for
            back-propagation, perturbed points and perturbations for PES.
    """

    step: int
    at: Any


class Estimate(NamedTuple):
    """Outcome of a segment: weighted outer loss, meta-gradient, and where fine-tuning stands."""

    loss: Tensor
    grads: Params
    end: Progress


class Estimator(Protocol):
    """An estimate of ∇ of the outer loss in the meta-parameters, segment by segment.

    Segments of ``learner.plan.segment`` steps cover the trajectory. The mean over them of the outer
    loss Σ_k w_k (1/B) Σ_i f_i(θ_i⁽ᵏ⁾; outer data) is that of eq. 4 with Σ_k w_k = 1.
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
        """Estimate of the next segment.

        Args:
            meta: meta-parameters.
            tasks: B tasks; ``support`` is the data of the inner loop, ``query`` that of the outer.
            state: end of the segment before; None at the start of a trajectory.
            generator: draws θ⁽⁰⁾, zeroth-order directions and perturbations.
        """


def step_weights(kind: Literal["uniform", "linear", "final"], steps: int) -> list[float]:
    """w_1 … w_K of eq. 4, scaled to sum to 1: constant, proportional to k, or 1[k = K]."""
    return segment_weights(kind, steps, 0, steps)


def segment_weights(
    kind: Literal["uniform", "linear", "final"], steps: int, begin: int, length: int
) -> list[float]:
    """w_k of the steps ``begin`` + 1 … ``begin`` + ``length`` of a trajectory of K = ``steps``.

    They are scaled by the number of segments, so that the mean over segments is eq. 4's sum with
    Σ_k w_k = 1, whatever the length of the segments.
    """
    raw = {
        "uniform": [1.0] * steps,
        "linear": [float(k) for k in range(1, steps + 1)],
        "final": [0.0] * (steps - 1) + [1.0],
    }[kind]
    segments = steps // length
    return [segments * weight / sum(raw) for weight in raw[begin : begin + length]]


def weights(learner: Learner, begin: int) -> list[float]:
    """w_k of the segment after ``begin`` steps; MAML-like methods see the last step (eq. 1)."""
    kind = learner.experiment.training.step_weights if learner.method.learns_finetuner else "final"
    return segment_weights(kind, learner.plan.steps, begin, learner.plan.segment)


def capped(losses: Tensor, cap: float | None) -> Tensor:
    """Each task's loss, growing only like its logarithm above ``cap``.

    ρ(f) = f up to c = ``cap`` and c (1 + log(f / c)) above, so that ρ' = min(1, c / f). A loss that
    is not a number counts as the largest finite one.
    """
    if cap is None:
        return losses
    largest = torch.finfo(losses.dtype).max
    finite = losses.nan_to_num(nan=largest, posinf=largest)
    return torch.where(finite > cap, cap * (1 + (finite.clamp(min=cap) / cap).log()), finite)


def slope(losses: Tensor, cap: float | None) -> Tensor:
    """ρ' of :func:`capped`."""
    return torch.ones_like(losses) if cap is None else (cap / losses).clamp(max=1)


def gradient_of(loss: Tensor, meta: Params) -> Params:
    """∇ of a loss in every meta-parameter, zero where it does not depend on one."""
    grads = torch.autograd.grad(
        loss, list(meta.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(meta, grads, strict=True))


def norm(grads: Params) -> float:
    """Euclidean norm of a whole meta-gradient, in float64."""
    return math.sqrt(sum(float(leaf.double().square().sum()) for leaf in grads.values()))
