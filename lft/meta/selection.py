"""Model selection: choose meta-parameters and step sizes on meta-validation tasks."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import torch
from torch import Tensor

from lft.config import Run
from lft.errors import Diverged
from lft.meta.adapt import adapt, parts
from lft.meta.estimators.base import step_weights
from lft.meta.learner import Learner
from lft.meta.state import TrainingState
from lft.seeding import generator
from lft.tasks.base import TaskFamily
from lft.types import Batch, Params

log = logging.getLogger(__name__)


class Validated(NamedTuple):
    """Outcome of a meta-validation.

    Attributes:
        score: Σ_k w_k of the family's score; model selection minimises it.
        error: standard error of ``score`` over meta-validation tasks.
        outer: uncapped outer loss on the same tasks.
    """

    score: float
    error: float
    outer: float


@torch.no_grad()
def validate(
    learner: Learner, meta: Params, run: Run, families: dict[str, TaskFamily]
) -> Validated:
    """Fine-tune the meta-validation tasks and judge the outcome.

    The tasks are the same at every call and for every method. Each method is judged on the data of
    its own outer loss, so L2O never sees a separate query set.

    Args:
        learner: method and settings.
        meta: meta-parameters to judge.
        run: its experiment and seed name the random draws.
        families: the families that the run trains on, by name.
    """
    training = learner.experiment.training
    w_k = step_weights(training.step_weights, training.steps)
    of_families = []
    for name, family in families.items():
        random = generator("validation", run.experiment, name, run.seed)
        tasks = family.sample(training.validation.tasks, random, "validation")
        start = learner.start(meta, family, training.validation.tasks, random)
        gradient = learner.gradient(random)
        of_parts = []
        for part, params in parts(tasks, start):
            support, query = learner.data(part)
            tuner, steps = learner.tuner(meta), training.steps
            points = adapt(family, tuner, params, support, steps=steps, gradient=gradient)
            values = [
                w * _judged(family, point.params, query)
                for w, point in zip(w_k, points, strict=True)
                if w
            ]
            of_parts.append(torch.stack(values).sum(0))
        of_families.append(torch.cat(of_parts, dim=1))
    n = len(of_families)
    means = torch.stack([values.mean(1) for values in of_families]).mean(0)
    spread = sum(float(values[0].var()) / values.shape[1] for values in of_families)
    return Validated(float(means[0]), math.sqrt(spread) / n, float(means[1]))


def _judged(family: TaskFamily, params: Params, query: Batch) -> Tensor:
    """Return the score and the outer loss of each task, (2, B), in float64."""
    judged = family.score(params, query)
    loss = family.loss(params, query) if family.settings.primary == "accuracy" else judged
    return torch.stack([judged, loss]).double()


def pick_step_size(
    learner: Learner, run: Run, families: dict[str, TaskFamily], state: TrainingState
) -> None:
    """Choose a hand-designed fine-tuner's step size on meta-validation tasks.

    Args:
        learner: method and settings.
        run: its experiment and seed name the random draws.
        families: the families that the run trains on, by name.
        state: receives the history and the best step size, as stage ``best``.

    Raises:
        Diverged: no step size has a finite score.
    """
    grid = learner.experiment.step_sizes[learner.method.tuner]
    for index, step_size in enumerate(grid, start=1):
        meta = {"step_size": torch.tensor(step_size, dtype=torch.float64)}
        found = validate(learner, meta, run, families)
        log.info("step size %g: meta-validation score %g", step_size, found.score)
        state.history.append([index, "+".join(families), math.nan, *found])
        if found.score < state.best_score:
            state.best_score, state.best_step = found.score, index
            state.stages["best"] = meta
    state.step = len(grid)
    if not math.isfinite(state.best_score):
        raise Diverged("the meta-validation score was not finite for any step size")
