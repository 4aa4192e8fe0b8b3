"""The inner loop. Meta-training, evaluation and the theory all fine-tune through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lft.finetuners.base import FineTuner
from lft.gradients import Gradient
from lft.tasks.base import Objective
from lft.types import Batch, Params, State


class Point(NamedTuple):
    """Where fine-tuning stands: θ⁽ᵏ⁾, each (B, …), and the fine-tuner's state h⁽ᵏ⁾."""

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
        start: θ⁽⁰⁾, or a point reached before, to go on from with the fine-tuner's state.
        support: D^tr of each task, (B, n, …).
        steps: K.
        gradient: first-order or zeroth-order; whether it records a graph decides whether the
            points can be differentiated through it.

    Yields:
        The point after each of the K steps.
    """
    params, state = start if isinstance(start, Point) else (start, tuner.start(start))
    for _ in range(steps):
        grads = gradient(family, params, support)
        state, params = tuner.step(state, params, grads)
        yield Point(params, state)
