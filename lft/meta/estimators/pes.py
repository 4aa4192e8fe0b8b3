"""Persistent evolution strategies (PES): an update per segment without truncation bias."""

from __future__ import annotations

from torch import Generator

from lft.meta.estimators.base import Estimate, Progress
from lft.meta.estimators.evolution import (
    average,
    begin_pair,
    contributions,
    perturbations,
    run_pair,
)
from lft.meta.learner import Learner
from lft.tasks.base import TaskFamily
from lft.types import Params, TaskBatch


class PersistentEvolution:
    """ĝ_t = mean over tasks i and pairs of (F_i,t⁺ − F_i,t⁻) ξ_t / (2σ²), ξ_t = ε_1 + … + ε_t.

    Vicol et al. (2021). Segment t resumes the perturbed trajectories of segment t − 1 under a new
    perturbation ε_t ~ N(0, σ² I). F_i,t⁺ and F_i,t⁻ are its outer losses under φ + ε_t and φ − ε_t.
    If φ stays constant, Σ_t ĝ_t is unbiased for the gradient of the smoothed loss of the whole
    trajectory.
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
        n = len(tasks.query.x) * learner.experiment.training.evolution.pairs
        noise = perturbations(learner, meta, n, generator)
        if state is None:
            begin, total = 0, noise
            start = begin_pair(learner, meta, noise, family, generator)
        else:
            begin, (start, before) = state
            total = {name: before[name] + leaf for name, leaf in noise.items()}
        losses, end = run_pair(learner, meta, noise, family, tasks, begin, start, generator)
        return Estimate(
            (losses.plus + losses.minus).mean() / 2,
            average(contributions(losses, total, learner.sigma)),
            Progress(begin + learner.plan.segment, (end, total)),
        )
