"""Divide images between phases and draw N-way k-shot tasks from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from lft.data import ImageSet
from lft.data.images import in_unit_range
from lft.errors import UsageError
from lft.seeding import generator as seeded
from lft.tasks.base import Phase
from lft.types import Batch, TaskBatch

Partition = Literal["disjoint", "paper"]


class Pool(NamedTuple):
    """Images by class: ``members[c]`` are the indices of class c into ``images``."""

    images: Tensor  # uint8 (n, C, H, W)
    members: tuple[Tensor, ...]

    def take(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Images at these indices, in [0, 1], ``(*indices.shape, C, H, W)``."""
        return in_unit_range(self.images[indices], dtype)


class Pools:
    """Support and query pools of one image source for the three phases.

    ``disjoint``: meta-training and meta-validation divide the training images between them;
    meta-testing uses the test images. A task's support and query are different images of one pool.
    ``paper``: in every phase, support comes from the training images and query from the test
    images.

    Args:
        images: the source.
        partition: see above.
        validation_share: share of each class's training images for meta-validation (disjoint).
        keep: masks of usable (training, test) images, e.g. those classified correctly; all if None.
    """

    def __init__(
        self,
        images: ImageSet,
        partition: Partition,
        validation_share: float,
        keep: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.label = images.label
        self.classes = images.classes
        n_classes = len(images.classes)
        train = _members(images.train_labels, n_classes, keep[0] if keep else None)
        test = _members(images.test_labels, n_classes, keep[1] if keep else None)
        self.by_phase: dict[Phase, tuple[Pool, Pool]]
        if partition == "paper":
            both = Pool(images.train_images, train), Pool(images.test_images, test)
            self.by_phase = {"train": both, "validation": both, "test": both}
        else:
            divided = [
                _divide(indices, validation_share, label) for label, indices in enumerate(train)
            ]
            pools = {
                "train": Pool(images.train_images, tuple(larger for larger, _ in divided)),
                "validation": Pool(images.train_images, tuple(smaller for _, smaller in divided)),
                "test": Pool(images.test_images, test),
            }
            self.by_phase = {
                "train": (pools["train"],) * 2,
                "validation": (pools["validation"],) * 2,
                "test": (pools["test"],) * 2,
            }

    def check(
        self,
        ways: int,
        support: int,
        query: int,
        phases: Sequence[Phase] = ("train", "validation", "test"),
    ) -> None:
        """Check that every class has enough images for a task in these phases.

        Args:
            ways: classes per task.
            support: images per class in the support set.
            query: images per class in the query set.
            phases: the phases to check.

        Raises:
            UsageError: there are too few classes, or a class has too few images; the message gives
                the class and the numbers.
        """
        if ways > len(self.classes):
            raise UsageError(
                f"{self.label}: a task needs {ways} classes, but there are {len(self.classes)}"
            )
        for phase in phases:
            first, second = self.by_phase[phase]
            for label, name in enumerate(self.classes):
                sizes = len(first.members[label]), len(second.members[label])
                needed = (support + query,) * 2 if first is second else (support, query)
                for size, need in zip(sizes, needed, strict=True):
                    if size < need:
                        raise UsageError(
                            f"{self.label}: class {name!r} has {size} usable images for "
                            f"meta-{phase}, but a task needs {need}; add images, or lower "
                            f"support and query"
                        )

    def sample(
        self,
        n_tasks: int,
        generator: Generator,
        phase: Phase,
        *,
        ways: int,
        support: int,
        query: int,
        relabel: bool,
        dtype: torch.dtype = torch.float32,
    ) -> TaskBatch:
        """Draw tasks of ``ways`` classes.

        Args:
            n_tasks: B.
            generator: of the draws.
            phase: the phase whose pools to draw from.
            ways: classes per task.
            support: images per class in the support set.
            query: images per class in the query set.
            relabel: number a task's classes 0 … ways − 1 instead of keeping the source's labels.
            dtype: of the images.

        Returns:
            Images (B, ways · k, C, H, W) in [0, 1] and labels (B, ways · k), class by class.

        Raises:
            UsageError: there are too few classes, or a class has too few images.
        """
        self.check(ways, support, query, (phase,))
        first, second = self.by_phase[phase]
        rows: list[tuple[Tensor, Tensor]] = []
        labels: list[Tensor] = []
        for _ in range(n_tasks):
            chosen = _order(len(self.classes), generator)[:ways]
            labels.append(torch.arange(ways, device="cpu") if relabel else chosen)
            drawn = [
                _draw(first, second, int(label), support, query, generator) for label in chosen
            ]
            rows.append((torch.cat([s for s, _ in drawn]), torch.cat([q for _, q in drawn])))
        label = torch.stack(labels).to(first.images.device)

        def examples(pool: Pool, drawn: list[Tensor], per_class: int) -> Batch:
            images = pool.take(torch.stack(drawn), dtype)
            return Batch(images, label.repeat_interleave(per_class, 1))

        return TaskBatch(
            examples(first, [s for s, _ in rows], support),
            examples(second, [q for _, q in rows], query),
        )


def _members(labels: Tensor, n_classes: int, keep: Tensor | None) -> tuple[Tensor, ...]:
    kept = torch.ones_like(labels, dtype=torch.bool) if keep is None else keep
    return tuple(((labels == label) & kept).nonzero()[:, 0].cpu() for label in range(n_classes))


def _divide(indices: Tensor, share: float, label: int) -> tuple[Tensor, Tensor]:
    """Divide one class at random into parts of (1 − share, share), the same in every run."""
    order = _order(len(indices), seeded("partition", label))
    smaller = round(share * len(indices))
    return indices[order[smaller:]], indices[order[:smaller]]


def _draw(
    first: Pool, second: Pool, label: int, support: int, query: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Draw support and query indices of one class, disjoint where both share a pool."""
    members = first.members[label]
    order = _order(len(members), generator)
    if first is second:
        return members[order[:support]], members[order[support : support + query]]
    others = second.members[label]
    other_order = _order(len(others), generator)
    return members[order[:support]], others[other_order[:query]]


def _order(n: int, generator: Generator) -> Tensor:
    """Random permutation of 0 … n − 1, int64 (n,), on the CPU."""
    return torch.randperm(n, generator=generator, device=generator.device).cpu()
