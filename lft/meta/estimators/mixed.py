"""Back-propagation and evolution strategies, weighted by their inverse variances."""

from __future__ import annotations

import math

import torch
from torch import Generator

from lft.meta.adapt import Point
from lft.meta.estimators.base import Estimate, Estimator, Progress
from lft.meta.estimators.evolution import (
    Pair,
    average,
    contributions,
    perturbations,
    repeated,
    run_pair,
)
from lft.meta.estimators.exact import begun
from lft.meta.learner import Learner
from lft.tasks.base import TaskFamily
from lft.types import Batch, Params, TaskBatch


class Mixed:
    """ĝ = (ĝ_bp / s²_bp + ĝ_es / s²_es) / (1 / s²_bp + 1 / s²_es), for each segment.

    Metz et al. (2019), sec. 4. s² is an estimate's squared standard error over the tasks of the
    meta-batch, summed over meta-parameters. Back-propagation has by far the smaller error if the
    loss is smooth, evolution strategies if it is chaotic.

    Args:
        backprop: the estimator to mix with evolution strategies.
    """

    def __init__(self, backprop: Estimator) -> None:
        self.backprop = backprop

    def __call__(
        self,
        learner: Learner,
        meta: Params,
        family: TaskFamily,
        tasks: TaskBatch,
        state: Progress | None,
        generator: Generator,
    ) -> Estimate:
        """See :class:`lft.meta.estimators.base.Estimator`. B must be at least 2."""
        parts = [_one(tasks, i) for i in range(len(tasks.query.x))]
        if state is None:
            state = Progress(
                0, [begun(learner, meta, family, part, generator).at for part in parts]
            )
        begin, points = state
        made = [
            self.backprop(learner, meta, family, part, Progress(begin, point), generator)
            for part, point in zip(parts, points, strict=True)
        ]
        by_backprop = {name: torch.stack([e.grads[name] for e in made]) for name in meta}
        by_evolution = _evolution(learner, meta, family, tasks, begin, points, generator)
        return Estimate(
            torch.stack([estimate.loss for estimate in made]).mean(),
            combined(by_backprop, by_evolution),
            Progress(begin + learner.plan.segment, [estimate.end.at for estimate in made]),
        )


def combined(one: Params, other: Params) -> Params:
    """Combine two sets of estimates of a gradient by inverse variance.

    If one variance is not finite, the other estimate is used alone.

    Args:
        one: B estimates, each leaf (B, …).
        other: B estimates, each leaf (B, …).

    Returns:
        The weighted mean, by name of the meta-parameter.
    """
    spread, other_spread = spread_of_mean(one), spread_of_mean(other)
    if not math.isfinite(spread):
        return average(other)
    if not math.isfinite(other_spread):
        return average(one)
    share = other_spread / (spread + other_spread) if spread + other_spread > 0 else 0.5
    first, second = average(one), average(other)
    return {name: share * first[name] + (1 - share) * second[name] for name in first}


def spread_of_mean(estimates: Params) -> float:
    """Return the squared standard error of the mean of B estimates, summed over coordinates."""
    return sum(float(leaf.double().var(0).sum()) / len(leaf) for leaf in estimates.values())


def _evolution(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    tasks: TaskBatch,
    begin: int,
    points: list[Point],
    generator: Generator,
) -> Params:
    """Estimate each task's smoothed meta-gradient of the segment by antithetic pairs.

    Returns:
        The estimates, each leaf (B, …).
    """
    n_tasks, pairs = len(points), learner.experiment.training.evolution.pairs
    noise = perturbations(learner, meta, n_tasks * pairs, generator)
    params = {name: torch.cat([p.params[name] for p in points]) for name in points[0].params}
    start = repeated(Point(params, [point.state for point in points]), pairs)
    losses, _ = run_pair(learner, meta, noise, family, tasks, begin, Pair(start, start), generator)
    of_each = contributions(losses, noise, learner.sigma)
    return {name: leaf.unflatten(0, (n_tasks, pairs)).mean(1) for name, leaf in of_each.items()}


def _one(tasks: TaskBatch, index: int) -> TaskBatch:
    """Return one task as a batch with B = 1; keep support and query the same object if they are."""
    here = slice(index, index + 1)
    support = Batch(tasks.support.x[here], tasks.support.y[here])
    if tasks.query is tasks.support:
        return TaskBatch(support, support)
    return TaskBatch(support, Batch(tasks.query.x[here], tasks.query.y[here]))
