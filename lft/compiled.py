"""MAML's meta-gradient through ``torch.compile``, for long runs without native kernels.

Compiling takes as long as thousands of meta-batches: the length of a run decides whether it pays.
"""

from __future__ import annotations

import functools
import logging
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lft import native
from lft.adapt import adapt
from lft.finetuners.gradient_descent import SGD
from lft.learner import Learner
from lft.seeding import generator
from lft.tasks.base import Objective, TaskFamily
from lft.tasks.classification import Classification
from lft.tasks.sine import Sine
from lft.types import Batch, Params, TaskBatch

log = logging.getLogger(__name__)

PAYS_FROM = 10_000
"""Meta-batches from which on compiling saves time, as measured (docs/performance.md)."""

GAINING = (Sine, Classification)
"""Families that are faster compiled; attacks take a third longer."""


def descend(
    family: TaskFamily, params: Params, tasks: TaskBatch, steps: int, step_size: float
) -> tuple[Tensor, Params, Params]:
    """The same as :meth:`lft.tasks.base.Differentiated.descend`, compiled at the first call.

    Raises:
        RuntimeError: it cannot be compiled.
    """
    params = {name: leaf.detach() for name, leaf in params.items()}
    return _compiled(tasks.query.x.device.type)(family, params, tasks, steps, step_size)


def chosen(learner: Learner, families: Iterable[TaskFamily], device: str) -> bool:
    """Whether a run's meta-gradients go through :func:`descend`; the log says so, and why.

    Compiles it for the families: what cannot be compiled is not chosen.

    Warns:
        RuntimeWarning: it would pay, but cannot be compiled.
    """
    families = list(families)
    gaining = all(isinstance(family, GAINING) for family in families)
    if not (learner.differentiates_descent and gaining):
        return False
    if native.used(learner.kernel, device) == "fused":
        why_not = "the native kernels are faster"
    elif learner.meta_batches < PAYS_FROM:
        why_not = f"it pays from {PAYS_FROM} meta-batches on, not for {learner.meta_batches}"
    else:
        log.info("torch.compile pays: %d meta-batches", learner.meta_batches)
        return all(_compiles(learner, family) for family in families)
    log.info("nothing to gain from torch.compile: %s", why_not)
    return False


def _compiles(learner: Learner, family: TaskFamily) -> bool:
    """Compile for one family, by a meta-batch whose result is thrown away."""
    random = generator("compile")
    tasks = family.sample(learner.experiment.training.meta_batch, random, "train")
    meta = learner.initial(family, random)
    start = learner.start(meta, family, len(tasks.query.x), random)
    began = time.perf_counter()
    try:
        descend(family, start, tasks, learner.plan.steps, learner.step_size(meta))
    except RuntimeError as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        warnings.warn(
            f"torch.compile failed ({reason}); the run takes the plain path, with the same "
            "results, a few times slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    log.info("compiled in %.0f s", time.perf_counter() - began)
    return True


@functools.cache
def _compiled(device: str) -> Callable[..., tuple[Tensor, Params, Params]]:
    options: dict[str, Any] = {"cpp_wrapper": device == "cpu"}
    return torch.compile(_descend, fullgraph=True, dynamic=False, options=options)


def _descend(
    family: TaskFamily, params: Params, tasks: TaskBatch, steps: int, step_size: float
) -> tuple[Tensor, Params, Params]:
    def total_loss(params: Params) -> tuple[Tensor, tuple[Tensor, Params]]:
        *_, point = adapt(
            family, SGD(step_size), params, tasks.support, steps=steps, gradient=_gradient
        )
        losses = family.loss(point.params, tasks.query)
        return losses.sum(), (losses, point.params)

    grads, (losses, end) = torch.func.grad(total_loss, has_aux=True)(params)
    return losses, grads, end


def _gradient(family: Objective, params: Params, batch: Batch) -> Params:
    """∇_θ f, differentiable by ``torch.func``."""
    grads: Params = torch.func.grad(lambda leaves: family.loss(leaves, batch).sum())(params)
    return grads
