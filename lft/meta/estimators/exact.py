"""Truncated back-propagation with all second-order terms (Statement 1, eqs. 7 to 9)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_map_only

from lft.meta.adapt import Point, adapt
from lft.meta.estimators.base import Estimate, Progress, capped, gradient_of, weights
from lft.meta.learner import Learner
from lft.tasks.base import Differentiated, TaskFamily
from lft.types import Params, TaskBatch


class Exact:
    """Reverse-mode gradient of a segment's outer loss, with the segment's start constant.

    Werbos (1990), "Backpropagation through time". It keeps the ∂g/∂θ term of eq. 8.
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
        end_step = begin + learner.plan.segment
        found = _descend(learner, meta, family, tasks, start)
        if found is not None:
            losses, grads, end = found
            of_init = {f"init/{name}": leaf.mean(0) for name, leaf in grads.items()}
            return Estimate(losses.mean(), of_init, Progress(end_step, Point(end, None)))
        points = adapt(
            family,
            learner.tuner(meta),
            start,
            tasks.support,
            steps=learner.plan.segment,
            gradient=learner.gradient(generator, create_graph=True),
        )
        cap = learner.task_clip
        loss, point = torch.zeros(()), start
        for weight, point in zip(weights(learner, begin), points, strict=True):
            if weight:
                loss = loss + weight * capped(family.loss(point.params, tasks.query), cap).mean()
        grads = gradient_of(loss, meta) if loss.requires_grad else _zeros(meta)
        return Estimate(loss.detach(), grads, Progress(end_step, detached(point)))


def begun(
    learner: Learner, meta: Params, family: TaskFamily, tasks: TaskBatch, generator: Generator
) -> Progress:
    """Return θ⁽⁰⁾ of B tasks and the fine-tuner's initial state."""
    params = learner.start(meta, family, len(tasks.support.x), generator)
    return Progress(0, Point(params, learner.tuner(meta).start(params)))


def detached(point: Point) -> Point:
    """Detach θ and the fine-tuner's state from the graph."""
    params = {name: leaf.detach() for name, leaf in point.params.items()}
    return Point(params, tree_map_only(Tensor, torch.Tensor.detach, point.state))


def _zeros(meta: Params) -> Params:
    return {name: torch.zeros_like(leaf) for name, leaf in meta.items()}


def _descend(
    learner: Learner, meta: Params, family: TaskFamily, tasks: TaskBatch, start: Point
) -> tuple[Tensor, Params, Params] | None:
    """Run gradient descent and its derivative without autograd; None if not available."""
    if not learner.differentiates_descent:
        return None
    if not isinstance(family, Differentiated):
        return None
    return family.descend(start.params, tasks, learner.plan.segment, learner.step_size(meta))
