"""The inner loop, shared by meta-training, evaluation and the theory measurements.

The fine-tuner takes each step (eq. 3); see :mod:`lft.finetuners.base`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from lft.finetuners.base import FineTuner, InPlace
from lft.meta.gradients import Gradient
from lft.tasks.base import Objective
from lft.types import Batch, Params, State, TaskBatch

SIDE_BY_SIDE = 100_000
"""Coordinates to fine-tune at once.

The LSTM state for this many (8 MB at hidden size 10) stays in the last-level cache. With far fewer,
call overhead exceeds the arithmetic.
"""


class Point(NamedTuple):
    """A point on the trajectory of B tasks.

    Attributes:
        params: θ⁽ᵏ⁾, each (B, …).
        state: the fine-tuner's state h⁽ᵏ⁾.
    """

    params: Params
    state: State


def adapt(
    family: Objective,
    tuner: FineTuner,
    start: Params | Point,
    support: Batch,
    *,
    steps: int,
    gradient: Gradient,
) -> Iterator[Point]:
    """Fine-tune B tasks side by side on their support sets (eq. 3).

    Args:
        family: defines the loss.
        tuner: update rule.
        start: θ⁽⁰⁾, each (B, …), or an earlier point to resume from with its fine-tuner state.
        support: D^tr of each task, (B, n, …).
        steps: K.
        gradient: first-order or zeroth-order. If it records a graph, the points can be
            differentiated through it.

    Yields:
        The point after each of the K steps. The next step may overwrite its state.
    """
    params, state = start if isinstance(start, Point) else (start, tuner.start(start))
    step = tuner.step
    if isinstance(tuner, InPlace):
        step = tuner.advance
        if isinstance(state, Tensor):
            state = state.clone()
    for _ in range(steps):
        grads = gradient(family, params, support)
        state, params = step(state, params, grads)
        yield Point(params, state)


def parts(tasks: TaskBatch, start: Params) -> Iterator[tuple[TaskBatch, Params]]:
    """Split tasks and their θ⁽⁰⁾ into parts of at most :data:`SIDE_BY_SIDE` coordinates.

    A part has at least one task. The split depends only on the shapes of θ, so it is the same for
    every method.

    Args:
        tasks: B tasks.
        start: θ⁽⁰⁾, each (B, …).

    Yields:
        Consecutive tasks and their θ⁽⁰⁾.
    """
    n_tasks = len(tasks.query.x)
    coordinates = sum(leaf[0].numel() for leaf in start.values())
    size = max(1, SIDE_BY_SIDE // coordinates)
    for begin in range(0, n_tasks, size):
        part = slice(begin, begin + size)
        batches = (Batch(batch.x[part], batch.y[part]) for batch in tasks)
        yield TaskBatch(*batches), {name: leaf[part] for name, leaf in start.items()}
