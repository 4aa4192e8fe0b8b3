"""The experimental design for Theorem 1: tasks, repeated draws of their data, and set sizes.

A draw has four disjoint sets: the support set D_tr, the query set D_val, a fresh set D_new of the
same size as D_tr on which nothing is fitted, and examples for σ. Smaller sets are subsets of larger
ones, so sampling noise does not pass for an effect of size.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Generator, Tensor

from lft.config import GapSettings
from lft.errors import UsageError
from lft.tasks.base import TaskFamily
from lft.types import Batch, Params


class Case(NamedTuple):
    """One point of the measurement.

    Attributes:
        support: examples per class in D_tr or D_new.
        query: examples per class in D_val.
        steps: K.
    """

    support: int
    query: int
    steps: int


class Draws(NamedTuple):
    """R draws of each of T tasks, B = T · R; the draws of a task are consecutive.

    Attributes:
        support: D_tr at its largest size, (B, n, …).
        fresh: D_new at its largest size, (B, n, …).
        query: D_val at its largest size, (B, n, …).
        held: examples for σ, (B, n, …).
        start: θ⁽⁰⁾, each (B, …), the same for all draws of a task.
    """

    support: Batch
    fresh: Batch
    query: Batch
    held: Batch
    start: Params


def cases(settings: GapSettings) -> list[Case]:
    """Return the points for comparing the meta-gradients of LFT and L2O, with D_tr fitted.

    Both sizes vary together, then each alone, then K. While |D_tr| varies alone, D_val has its
    largest size to keep its share of the gap small. |D_val| and K vary at the fixed size.
    """
    fixed, largest, longest = settings.fixed_size, max(settings.sizes), max(settings.steps)
    found = [Case(size, size, longest) for size in settings.sizes]
    found += [Case(size, largest, longest) for size in settings.sizes]
    found += [Case(fixed, size, longest) for size in settings.sizes]
    found += [Case(fixed, fixed, steps) for steps in settings.steps]
    return list(dict.fromkeys(found))


def frozen_cases(settings: GapSettings) -> list[Case]:
    """Return the points for comparing D_new and D_val on a frozen trajectory, at the largest K.

    Both sizes vary together, then each alone while the other has its largest size.
    """
    largest, longest = max(settings.sizes), max(settings.steps)
    found = [Case(size, size, longest) for size in settings.sizes]
    found += [Case(size, largest, longest) for size in settings.sizes]
    found += [Case(largest, size, longest) for size in settings.sizes]
    return list(dict.fromkeys(found))


def sample_draws(family: TaskFamily, settings: GapSettings, random: Generator) -> Draws:
    """Draw tasks, several data sets for each, and starts.

    Tasks come from the meta-training images, because the theorem is about meta-training.

    Args:
        family: family of the tasks.
        settings: numbers of tasks and draws, and sizes in examples per class.
        random: source of randomness.

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
    """Keep the first ``size`` examples of each class.

    Args:
        batch: (B, n_classes · n, …), class by class.
        n_classes: number of classes.
        size: examples per class to keep.

    Returns:
        (B, n_classes · size, …).
    """
    return Batch(*(leaf.unflatten(1, (n_classes, -1))[:, :, :size].flatten(1, 2) for leaf in batch))
