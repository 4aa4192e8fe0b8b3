"""The outer loop (Algorithm 1): truncated unrolls, gradient clipping and model selection."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lft.config import Run
from lft.errors import Diverged
from lft.finetuners.gradient_descent import Adam
from lft.meta.estimators import meta_gradient
from lft.meta.estimators.base import norm, weights
from lft.meta.learner import Learner
from lft.meta.selection import Validated, validate
from lft.meta.state import TrainingState
from lft.seeding import generator
from lft.tasks.base import TaskFamily


class Done(NamedTuple):
    """Outcome of one meta-batch.

    Attributes:
        family: name of the tasks' family.
        loss: outer loss, averaged over the segments.
        validated: the meta-validation that followed, if any.
    """

    family: str
    loss: float
    validated: Validated | None


def begin(learner: Learner, run: Run, families: Mapping[str, TaskFamily]) -> TrainingState:
    """Return the untrained state of a meta-training."""
    first = next(iter(families.values()))
    return TrainingState.fresh(learner.initial(first, generator("meta", run.experiment, run.seed)))


def meta_batches(
    learner: Learner, run: Run, families: dict[str, TaskFamily], state: TrainingState
) -> Iterator[Done]:
    """Run the outer loop from ``state`` to its end (Algorithm 1).

    Args:
        learner: method and settings.
        run: its experiment, order and seed name the random draws.
        families: the families to train on, by name; meta-batches take them in turn.
        state: updated in place.

    Yields:
        The outcome of each meta-batch.

    Raises:
        Diverged: an outer loss, a meta-gradient or all meta-validation scores are not finite.
    """
    training, total = learner.experiment.training, learner.meta_batches
    rounds = {
        math.ceil(total * (i + 1) / training.validation.rounds)
        for i in range(training.validation.rounds)
    }
    names = list(families)
    if not state.history:
        start = validate(learner, state.meta, run, families)
        state.history.append([0, "+".join(names), start.outer, *_numbers(start)])
    while state.step < total:
        name = names[state.step % len(names)]
        loss = _meta_batch(learner, run, name, families[name], state, total)
        state.step += 1
        if state.step == math.ceil(total / 2):
            state.stages["halfway"] = state.meta
        found = None
        if state.step in rounds:
            found = validate(learner, state.meta, run, families)
            if found.score < state.best_score:
                state.best_score, state.best_step = found.score, state.step
                state.stages["best"] = state.meta
        state.history.append([state.step, name, loss, *_numbers(found)])
        yield Done(name, loss, found)
    if not math.isfinite(state.best_score):
        raise Diverged("the meta-validation score was never finite")


def _numbers(found: Validated | None) -> list[float | str]:
    """Return the history's meta-validation columns, with an empty string for each missing value."""
    return ["" if math.isnan(value) else value for value in found or [math.nan] * 3]


def _meta_batch(
    learner: Learner,
    run: Run,
    name: str,
    family: TaskFamily,
    state: TrainingState,
    total: int,
) -> float:
    """Unroll one meta-batch along its whole trajectory, with one meta-update per segment.

    Returns:
        The outer loss, averaged over the segments.
    """
    learner = learner.at(state.step)
    training, plan = learner.experiment.training, learner.plan
    batch = state.step % training.batches
    tasks = family.sample(
        training.meta_batch,
        generator("train tasks", run.experiment, name, run.seed, batch),
        "train",
    )
    random = generator("train", run.experiment, run.order, run.seed, state.step)
    n_segments = plan.steps // plan.segment
    losses: list[float] = []
    progress = None
    for index in range(n_segments):
        estimate = meta_gradient(learner, state.meta, family, tasks, progress, random)
        progress, loss, size = estimate.end, float(estimate.loss), norm(estimate.grads)
        losses.append(loss)
        if not (math.isfinite(loss) and math.isfinite(size)):
            raise Diverged(
                f"outer loss {loss:g}, meta-gradient norm {size:g} at "
                f"meta-batch {state.step + 1}, segment {index + 1}"
            )
        if not any(weights(learner, index * plan.segment)):
            continue  # The segment has no loss; Adam would move on momentum alone.
        rate = plan.learning_rate
        if training.schedule == "cosine" or not learner.method.learns_finetuner:
            done = (state.step + index / n_segments) / total
            rate *= 0.5 * (1 + math.cos(math.pi * done))
        clip = min(1.0, training.clip / (size + 1e-12))
        clipped = {key: leaf * clip for key, leaf in estimate.grads.items()}
        state.moments, state.meta = Adam(rate).step(state.moments, state.meta, clipped)
    return sum(losses) / n_segments
