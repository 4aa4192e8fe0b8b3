"""Evolution strategies: the meta-gradient of a smoothed outer loss, from its values alone."""

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

    It is unbiased for ∇_φ E_ε[F(φ + ε)], F being the outer loss of a whole trajectory: nothing is
    truncated and no derivative is taken through the steps. Salimans et al. (2017), antithetic
    pairs; Metz et al. (2019) for learned optimizers. Every task has perturbations of its own.
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
    """Something of the trajectories under φ + ε and under φ − ε."""

    plus: Point
    minus: Point


class PairLosses(NamedTuple):
    """Outer losses (n,) of n perturbed trajectories, and of their antithetic ones."""

    plus: Tensor
    minus: Tensor


class SideBySide:
    """One fine-tuner for each task; its state is the list of theirs, which a step overwrites."""

    def __init__(self, tuners: Sequence[FineTuner]) -> None:
        self.tuners = tuners
        self.steps = [t.advance if isinstance(t, InPlace) else t.step for t in tuners]
        self.by_coordinate = all(isinstance(tuner, CoordinateLSTM) for tuner in tuners)

    def start(self, params: Params) -> list[State]:
        """Each fine-tuner's state before the first step."""
        return [tuner.start(_task(params, i)) for i, tuner in enumerate(self.tuners)]

    def step(self, state: list[State], params: Params, grads: Params) -> tuple[list[State], Params]:
        """One step; see :class:`lft.finetuners.base.FineTuner`."""
        if self.by_coordinate and len(params) > 1:
            # One leaf in place of many: the same update with a tenth of the calls.
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
    """ε of n perturbations: each meta-parameter's as (n, …)."""
    return {
        name: learner.sigma
        * torch.randn((n, *leaf.shape), generator=generator, dtype=leaf.dtype).to(leaf.device)
        for name, leaf in meta.items()
    }


def begin_pair(
    learner: Learner, meta: Params, noise: Params, family: TaskFamily, generator: Generator
) -> Pair:
    """The start of n trajectories: the same random θ⁽⁰⁾ for φ + ε and φ − ε."""
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
    """φ + ε, or φ − ε, of every perturbation."""
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
    """One segment of both trajectories of each perturbation, with the same zeroth-order directions.

    Returns:
        The weighted, capped outer losses, and where the trajectories end.
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
    """(F(φ + ε) − F(φ − ε)) ε / (2σ²) of every perturbation, each leaf (n, …)."""
    slopes = (losses.plus - losses.minus) / (2 * sigma**2)
    return {name: slopes.view(-1, *[1] * (leaf.dim() - 1)) * leaf for name, leaf in noise.items()}


def average(of_each: Params) -> Params:
    """Mean over perturbations."""
    return {name: leaf.mean(0) for name, leaf in of_each.items()}


def repeated(point: Point, times: int) -> Point:
    """Each task's point ``times`` times in a row."""
    params = {name: leaf.repeat_interleave(times, 0) for name, leaf in point.params.items()}
    return Point(params, [state for state in point.state for _ in range(times)])
