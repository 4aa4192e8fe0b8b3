"""What Theorem 1 is measured on: tasks, several draws of each one's data, and sizes of the sets.

A draw of a task has a support set D_tr, a query set D_val, a fresh set D_new that stands in for
D_tr but that nothing is fitted on, and examples for σ. All four are different examples; smaller
sets are parts of larger ones, so that the noise of the sample is not taken for an effect of the
size.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Generator, Tensor

from lft.config import GapSettings
from lft.errors import UsageError
from lft.tasks.base import TaskFamily
from lft.types import Batch, Params


class Case(NamedTuple):
    """One point of the measurement: examples per class in the two sets, and K."""

    support: int
    query: int
    steps: int


class Draws(NamedTuple):
    """R draws of each of T tasks, one after the other within a task: B = T · R.

    Attributes:
        support: D_tr at its largest; ``fresh`` is D_new and ``query`` D_val.
        held: examples for σ.
        start: θ⁽⁰⁾, the same for all draws of a task.
    """

    support: Batch
    fresh: Batch
    query: Batch
    held: Batch
    start: Params


def cases(settings: GapSettings) -> list[Case]:
    """Points at which LFT's and L2O's meta-gradients are compared, D_tr being fitted.

    Both sizes vary together, then each alone, then K. While |D_tr| varies alone D_val is as large
    as can be, so that its share of the gap is small; |D_val| and K vary at the fixed size.
    """
    fixed, largest, longest = settings.fixed_size, max(settings.sizes), max(settings.steps)
    found = [Case(size, size, longest) for size in settings.sizes]
    found += [Case(size, largest, longest) for size in settings.sizes]
    found += [Case(fixed, size, longest) for size in settings.sizes]
    found += [Case(fixed, fixed, steps) for steps in settings.steps]
    return list(dict.fromkeys(found))


def frozen_cases(settings: GapSettings) -> list[Case]:
    """Points at which D_new and D_val are compared on a frozen trajectory: both sizes vary
    together, then each alone while the other is as large as can be. The largest K."""
    largest, longest = max(settings.sizes), max(settings.steps)
    found = [Case(size, size, longest) for size in settings.sizes]
    found += [Case(size, largest, longest) for size in settings.sizes]
    found += [Case(largest, size, longest) for size in settings.sizes]
    return list(dict.fromkeys(found))


def sample_draws(family: TaskFamily, settings: GapSettings, random: Generator) -> Draws:
    """Draw tasks, the data of each several times, and starts.

    Tasks come from the meta-training images, since the theorem is about meta-training.

    Raises:
        UsageError: the family cannot draw tasks of these sizes.
    """
    n_draws = settings.draws
    largest = max(*settings.sizes, settings.fixed_size)
    of_support, of_query = 2 * largest, largest + settings.sigma_size
    sized = family.resized(support=n_draws * of_support, query=n_draws * of_query)
    tasks = sized.sample(settings.tasks, random, "train")
    n_classes = family.settings.classes_per_task
    for found, wanted in zip(tasks, (of_support, of_query), strict=True):
        if found.size != n_classes * n_draws * wanted:
            raise UsageError(
                f"Theorem 1 asked {type(family).__name__} for {n_classes * n_draws * wanted} "
                f"examples of a task and got {found.size}; its size must follow its settings"
            )

    def part(batch: Batch, begin: int, end: int) -> Batch:
        def divide(leaf: Tensor) -> Tensor:
            by_draw: Tensor = leaf.unflatten(1, (n_classes, n_draws, -1)).movedim(2, 1)
            return by_draw[:, :, :, begin:end].flatten(2, 3).flatten(0, 1)

        return Batch(divide(batch.x), divide(batch.y))

    start = family.init(settings.tasks, random)
    return Draws(
        support=part(tasks.support, 0, largest),
        fresh=part(tasks.support, largest, of_support),
        query=part(tasks.query, 0, largest),
        held=part(tasks.query, largest, of_query),
        start={name: leaf.repeat_interleave(n_draws, 0) for name, leaf in start.items()},
    )


def first(batch: Batch, n_classes: int, size: int) -> Batch:
    """The first ``size`` examples of each class."""
    return Batch(*(leaf.unflatten(1, (n_classes, -1))[:, :, :size].flatten(1, 2) for leaf in batch))
