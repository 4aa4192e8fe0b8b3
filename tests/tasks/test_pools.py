"""Image pools: what is disjoint, what is drawn, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lft.data import ImageSet
from lft.errors import UsageError
from lft.seeding import generator
from lft.tasks.base import Phase
from lft.tasks.pools import Partition, Pools
from lft.types import TaskBatch

PHASES: tuple[Phase, ...] = ("train", "validation", "test")


def numbered(n_classes: int = 4, train: int = 20, test: int = 10) -> ImageSet:
    """Every image's two pixels spell its number; test images are numbered from 10,000."""

    def split(n: int, first: int) -> tuple[Tensor, Tensor]:
        numbers = torch.arange(first, first + n * n_classes)
        pixels = torch.stack([numbers // 256, numbers % 256], 1).to(torch.uint8)
        return pixels.view(-1, 1, 1, 2), torch.arange(n_classes).repeat(n)

    classes = tuple(f"class {label}" for label in range(n_classes))
    return ImageSet(*split(train, 0), *split(test, 10_000), classes, "numbers", None, None)


def numbers(x: Tensor) -> Tensor:
    """Numbers of images (…, 1, 1, 2) in [0, 1]."""
    pixels = (255 * x).round().long().flatten(-3)
    return 256 * pixels[..., 0] + pixels[..., 1]


def drawn(partition: Partition, phase: Phase, n_tasks: int = 50, **changes: Any) -> TaskBatch:
    options = {"ways": 2, "support": 1, "query": 2, "relabel": False} | changes
    return Pools(numbered(), partition, 0.2).sample(n_tasks, generator(phase), phase, **options)


def test_phases_draw_from_disjoint_images() -> None:
    seen = {}
    for phase in PHASES:
        support, query = drawn("disjoint", phase)
        seen[phase] = set(torch.cat([numbers(support.x), numbers(query.x)], 1).flatten().tolist())
    assert not seen["train"] & seen["validation"]
    assert min(seen["test"]) >= 10_000 > max(seen["train"] | seen["validation"])
    # 100 classes drawn in 50 tasks see every image of a pool but for a chance of 1e-4; the seed
    # is fixed. 20 training images a class, of which a fifth validate.
    assert [len(seen[phase]) for phase in PHASES] == [64, 16, 40]


def test_the_paper_takes_support_from_training_and_query_from_test_images() -> None:
    for phase in PHASES:
        support, query = drawn("paper", phase)
        assert numbers(support.x).max() < 10_000 <= numbers(query.x).min()


@pytest.mark.parametrize("partition", ["disjoint", "paper"])
@given(
    ways=st.integers(1, 4),
    support=st.integers(1, 2),
    query=st.integers(1, 2),
    phase=st.sampled_from(PHASES),
    n_tasks=st.integers(1, 3),
    relabel=st.booleans(),
)
def test_a_task_is_what_was_asked_for(
    partition: Partition,
    ways: int,
    support: int,
    query: int,
    phase: Phase,
    n_tasks: int,
    relabel: bool,
) -> None:
    options = {"ways": ways, "support": support, "query": query, "relabel": relabel}
    tasks = drawn(partition, phase, n_tasks, **options)
    for shots, part in ((support, tasks.support), (query, tasks.query)):
        assert part.x.shape == (n_tasks, ways * shots, 1, 1, 2)
        assert part.y.shape == (n_tasks, ways * shots)
        assert part.x.min() >= 0
        assert part.x.max() <= 1
        own = numbers(part.x) % 10_000 % 4  # the numbers' class
        for task in range(n_tasks):
            classes = own[task].view(ways, shots)
            assert (classes == classes[:, :1]).all()
            assert len(set(classes[:, 0].tolist())) == ways
            labels = part.y[task].view(ways, shots)
            expected = torch.arange(ways) if relabel else classes[:, 0]
            assert torch.equal(labels, expected[:, None].expand(ways, shots))
    together = torch.cat([numbers(tasks.support.x), numbers(tasks.query.x)], 1)
    for row in together.tolist():
        assert len(set(row)) == len(row)  # support and query share no image


def test_support_and_query_have_the_same_classes_in_the_same_order() -> None:
    support, query = drawn("disjoint", "train")
    assert torch.equal(support.y, query.y[:, ::2])


def test_draws_depend_on_the_generator_alone() -> None:
    torch.manual_seed(0)
    one = drawn("disjoint", "train")
    torch.manual_seed(1)
    two = drawn("disjoint", "train")
    assert torch.equal(one.support.x, two.support.x)
    assert torch.equal(one.query.y, two.query.y)


def test_only_kept_images_are_drawn() -> None:
    images = numbered()
    keep = torch.arange(80) % 3 == 0, torch.arange(40) % 3 == 0
    pools = Pools(images, "disjoint", 0.2, keep)
    for phase in PHASES:
        tasks = pools.sample(
            50, generator("tasks"), phase, ways=2, support=1, query=0, relabel=False
        )
        assert (numbers(tasks.support.x) % 10_000 % 3 == 0).all()


def test_too_few_images_are_refused_with_class_phase_and_numbers() -> None:
    images = numbered(train=20, test=10)
    pools = Pools(images, "disjoint", 0.2)  # 16, 4 and 10 images a class
    pools.check(4, 2, 2)
    with pytest.raises(
        UsageError,
        match="numbers: class 'class 0' has 4 usable images for meta-validation, but a task",
    ):
        pools.check(4, 2, 3)
    pools = Pools(images, "paper", 0.2)
    pools.check(4, 20, 10)
    with pytest.raises(
        UsageError, match="has 10 usable images for meta-train, but a task needs 11"
    ):
        pools.check(4, 20, 11)
    with pytest.raises(
        UsageError, match="has 20 usable images for meta-train, but a task needs 21"
    ):
        pools.check(4, 21, 10)
    without_class_two = replace(
        images, test_labels=images.test_labels.where(images.test_labels != 2, 1)
    )
    with pytest.raises(UsageError, match="class 'class 2' has 0 usable images for meta-test"):
        Pools(without_class_two, "disjoint", 0.2).check(2, 1, 1)


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="numbers: a task needs 5 classes, but there are 4"):
        Pools(numbered(), "disjoint", 0.2).check(5, 1, 1)
