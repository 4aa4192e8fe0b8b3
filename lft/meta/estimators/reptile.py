"""Reptile's update direction, used as a meta-gradient."""

from __future__ import annotations

import torch
from torch import Generator

from lft.meta.adapt import adapt
from lft.meta.estimators.base import Estimate, Progress
from lft.meta.estimators.exact import begun, detached
from lft.meta.learner import Learner
from lft.tasks.base import TaskFamily
from lft.types import Params, TaskBatch


class Reptile:
    """θ⁽⁰⁾ − θ⁽ᴷ⁾, averaged over tasks (Nichol et al., 2018); the loss is reported only."""

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
        begin, start = state or begun(learner, meta, family, tasks, generator)
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
        return Estimate(loss, grads, Progress(begin + learner.plan.segment, detached(point)))
