"""Shared parts of the meta-gradient estimators: interface, w_k of eq. 4, and capped losses."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from lft.meta.learner import Learner
from lft.tasks.base import TaskFamily
from lft.types import Params, TaskBatch


class Progress(NamedTuple):
    """Position on the trajectories of a meta-batch.

    Attributes:
        step: fine-tuning steps done.
        at: what the estimator needs to resume: a :class:`lft.meta.adapt.Point` of B tasks for
            back-propagation, perturbed points and summed perturbations for PES.
    """

    step: int
    at: Any


class Estimate(NamedTuple):
    """Outcome of a segment.

    Attributes:
        loss: weighted outer loss, ().
        grads: meta-gradient, by name of the meta-parameter.
        end: where fine-tuning stopped.
    """

    loss: Tensor
    grads: Params
    end: Progress


class Estimator(Protocol):
    """Estimates the outer loss's gradient with respect to the meta-parameters, in segments.

    Segments of ``learner.plan.segment`` steps cover the trajectory. A segment's outer loss is
    Σ_k w_k (1/B) Σ_i f_i(θ_i⁽ᵏ⁾; outer data). Its mean over segments is the objective of eq. 4,
    averaged over tasks, with Σ_k w_k = 1.
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
        """Run the next segment and estimate its meta-gradient.

        Args:
            learner: method and settings.
            meta: meta-parameters.
            family: defines the loss and θ⁽⁰⁾.
            tasks: B tasks; the inner loop uses ``support``, the outer loss ``query``.
            state: end of the previous segment; None at the start of a trajectory.
            generator: draws θ⁽⁰⁾, zeroth-order directions and perturbations.
        """


def step_weights(kind: Literal["uniform", "linear", "final"], steps: int) -> list[float]:
    """Return w_1 … w_K of eq. 4, scaled to sum to 1.

    Args:
        kind: ``uniform`` is constant, ``linear`` proportional to k, ``final`` is 1[k = K].
        steps: K.
    """
    return segment_weights(kind, steps, 0, steps)


def segment_weights(
    kind: Literal["uniform", "linear", "final"], steps: int, begin: int, length: int
) -> list[float]:
    """Return w_k of the steps ``begin`` + 1 … ``begin`` + ``length``.

    The number of segments scales them, so the mean over segments is eq. 4's sum with Σ_k w_k = 1,
    whatever the segment length.

    Args:
        kind: as in :func:`step_weights`.
        steps: K of the whole trajectory.
        begin: steps before the segment.
        length: steps of the segment; divides K.
    """
    raw = {
        "uniform": [1.0] * steps,
        "linear": [float(k) for k in range(1, steps + 1)],
        "final": [0.0] * (steps - 1) + [1.0],
    }[kind]
    segments = steps // length
    return [segments * weight / sum(raw) for weight in raw[begin : begin + length]]


def weights(learner: Learner, begin: int) -> list[float]:
    """Return w_k of the segment that starts after ``begin`` steps.

    Methods that learn only an initialisation weight only the last step (eq. 1).
    """
    kind = learner.experiment.training.step_weights if learner.method.learns_finetuner else "final"
    return segment_weights(kind, learner.plan.steps, begin, learner.plan.segment)


def capped(losses: Tensor, cap: float | None) -> Tensor:
    """Cap each task's loss softly: above ``cap`` it grows only logarithmically.

    ρ(f) = f up to c = ``cap`` and c (1 + log(f / c)) above, so ρ' = min(1, c / f). NaN and infinity
    count as the largest finite number.

    Args:
        losses: any shape.
        cap: c; None returns the losses unchanged.
    """
    if cap is None:
        return losses
    largest = torch.finfo(losses.dtype).max
    finite = losses.nan_to_num(nan=largest, posinf=largest)
    return torch.where(finite > cap, cap * (1 + (finite.clamp(min=cap) / cap).log()), finite)


def slope(losses: Tensor, cap: float | None) -> Tensor:
    """Return ρ' of :func:`capped`, in the shape of ``losses``."""
    return torch.ones_like(losses) if cap is None else (cap / losses).clamp(max=1)


def gradient_of(loss: Tensor, meta: Params) -> Params:
    """Return a loss's gradient with respect to each meta-parameter; zero where independent."""
    grads = torch.autograd.grad(
        loss, list(meta.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(meta, grads, strict=True))


def norm(grads: Params) -> float:
    """Return the Euclidean norm of a whole meta-gradient, computed in float64."""
    return math.sqrt(sum(float(leaf.double().square().sum()) for leaf in grads.values()))
