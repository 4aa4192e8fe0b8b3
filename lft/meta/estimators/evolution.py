"""Evolution strategies: the meta-gradient of a smoothed outer loss, from loss values only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_map_only

from lft.finetuners.base import FineTuner, InPlace
from lft.finetuners.lstm import CoordinateLSTM
from lft.meta.adapt import Point, adapt
from lft.meta.estimators.base import Estimate, Progress, capped, weights
from lft.meta.learner import Learner
from lft.tasks.base import TaskFamily
from lft.types import Params, State, TaskBatch, flatten, unflatten


class Evolution:
    """ĝ = mean over tasks i and pairs of (F_i(φ + ε) − F_i(φ − ε)) ε / (2σ²), ε ~ N(0, σ² I).

    Unbiased for ∇_φ E_ε[F(φ + ε)], where F is the outer loss of a whole trajectory. It truncates
    nothing and differentiates no step. Salimans et al. (2017), with antithetic pairs; Metz et al.
    (2019) for learned optimizers. Each task draws its own perturbations.
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
        """See :class:`lft.meta.estimators.base.Estimator`. The segment is the whole trajectory."""
        n = len(tasks.query.x) * learner.experiment.training.evolution.pairs
        noise = perturbations(learner, meta, n, generator)
        start = begin_pair(learner, meta, noise, family, generator)
        losses, _ = run_pair(learner, meta, noise, family, tasks, 0, start, generator)
        grads = average(contributions(losses, noise, learner.sigma))
        end = Progress(learner.plan.steps, None)
        return Estimate((losses.plus + losses.minus).mean() / 2, grads, end)


class Pair(NamedTuple):
    """Points of n trajectories under φ + ε, and of their antithetic ones under φ − ε."""

    plus: Point
    minus: Point


class PairLosses(NamedTuple):
    """Outer losses (n,) under φ + ε and under φ − ε."""

    plus: Tensor
    minus: Tensor


class SideBySide:
    """One fine-tuner per task, run as one; a step may overwrite their list of states.

    Args:
        tuners: B fine-tuners.
    """

    def __init__(self, tuners: Sequence[FineTuner]) -> None:
        self.tuners = tuners
        self.steps = [t.advance if isinstance(t, InPlace) else t.step for t in tuners]
        self.by_coordinate = all(isinstance(tuner, CoordinateLSTM) for tuner in tuners)

    def start(self, params: Params) -> list[State]:
        """Return each fine-tuner's state before the first step."""
        return [tuner.start(_task(params, i)) for i, tuner in enumerate(self.tuners)]

    def step(self, state: list[State], params: Params, grads: Params) -> tuple[list[State], Params]:
        """One step; see :class:`lft.finetuners.base.FineTuner`."""
        if self.by_coordinate and len(params) > 1:
            # Merge all leaves into one: the same update with a tenth of the calls.
            one, of_one = ({"theta": flatten(p).view(len(state), -1)} for p in (params, grads))
            state, moved = self.step(state, one, of_one)
            return state, unflatten(moved["theta"].flatten(), params)
        made = [
            step(state[i], _task(params, i), _task(grads, i)) for i, step in enumerate(self.steps)
        ]
        moved = {name: torch.cat([point[name] for _, point in made]) for name in params}
        return [kept for kept, _ in made], moved


def _task(params: Params, index: int) -> Params:
    return {name: leaf[index : index + 1] for name, leaf in params.items()}


def perturbations(learner: Learner, meta: Params, n: int, generator: Generator) -> Params:
    """Draw n perturbations ε ~ N(0, σ² I) of the meta-parameters, each leaf (n, …)."""
    return {
        name: learner.sigma
        * torch.randn((n, *leaf.shape), generator=generator, dtype=leaf.dtype).to(leaf.device)
        for name, leaf in meta.items()
    }


def begin_pair(
    learner: Learner, meta: Params, noise: Params, family: TaskFamily, generator: Generator
) -> Pair:
    """Return the start of n trajectory pairs; φ + ε and φ − ε share the random draws of θ⁽⁰⁾."""
    n = len(next(iter(noise.values())))
    again = generator.clone_state()
    made = []
    for sign, random in ((1, again), (-1, generator)):
        metas = perturbed(meta, noise, sign)
        if learner.method.learns_initialisation:
            each = [learner.start(one, family, 1, random) for one in metas]
            params = {name: torch.cat([one[name] for one in each]) for name in each[0]}
        else:
            params = learner.start(meta, family, n, random)
        tuner = SideBySide([learner.tuner(one) for one in metas])
        made.append(Point(params, tuner.start(params)))
    return Pair(*made)


def perturbed(meta: Params, noise: Params, sign: int) -> list[Params]:
    """Return φ + ε (``sign`` 1) or φ − ε (``sign`` −1) for each of the n perturbations."""
    n = len(next(iter(noise.values())))
    return [
        {name: leaf.detach() + sign * noise[name][i] for name, leaf in meta.items()}
        for i in range(n)
    ]


@torch.no_grad()
def run_pair(
    learner: Learner,
    meta: Params,
    noise: Params,
    family: TaskFamily,
    tasks: TaskBatch,
    begin: int,
    start: Pair,
    generator: Generator,
) -> tuple[PairLosses, Pair]:
    """Run one segment under φ + ε and φ − ε, with the same zeroth-order directions.

    Args:
        learner: method and settings.
        meta: meta-parameters φ.
        noise: n perturbations, each leaf (n, …).
        family: defines the loss.
        tasks: B tasks, where B divides n; each is run under n / B perturbations in a row.
        begin: fine-tuning steps before the segment.
        start: where the segment starts.
        generator: draws zeroth-order directions.

    Returns:
        The weighted, capped outer losses (n,), and the ends of the trajectories.
    """
    n = len(next(iter(noise.values())))
    times = n // len(tasks.query.x)
    support, query = (batch.repeat_tasks(times) for batch in tasks)
    w = weights(learner, begin)
    again = generator.clone_state()
    losses, ends = [], []
    for sign, begun, random in ((1, start.plus, again), (-1, start.minus, generator)):
        point = Point(begun.params, tree_map_only(Tensor, torch.Tensor.clone, begun.state))
        tuner = SideBySide([learner.tuner(one) for one in perturbed(meta, noise, sign)])
        total = torch.zeros(n, device=query.x.device)
        points = adapt(
            family, tuner, point, support, steps=len(w), gradient=learner.gradient(random)
        )
        for w_k, point in zip(w, points, strict=True):
            if w_k:
                total = total + w_k * capped(family.loss(point.params, query), learner.task_clip)
        losses.append(total)
        ends.append(point)
    return PairLosses(*losses), Pair(*ends)


def contributions(losses: PairLosses, noise: Params, sigma: float) -> Params:
    """Return (F(φ + ε) − F(φ − ε)) ε / (2σ²) for each perturbation, each leaf (n, …)."""
    slopes = (losses.plus - losses.minus) / (2 * sigma**2)
    return {name: slopes.view(-1, *[1] * (leaf.dim() - 1)) * leaf for name, leaf in noise.items()}


def average(of_each: Params) -> Params:
    """Average over the first axis of every leaf."""
    return {name: leaf.mean(0) for name, leaf in of_each.items()}


def repeated(point: Point, times: int) -> Point:
    """Repeat each task's point ``times`` times in a row."""
    params = {name: leaf.repeat_interleave(times, 0) for name, leaf in point.params.items()}
    return Point(params, [state for state in point.state for _ in range(times)])
