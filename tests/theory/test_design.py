"""What Theorem 1 is measured on: sizes, disjoint sets, and families that cannot be resized."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from closed_forms import LeastSquares
from theory_cases import N_DRAWS, N_TASKS, classification, of_task, settings, vector
from tiny import tiny_images
from torch import Generator, Tensor

from lft.config import FamilySettings
from lft.errors import UsageError
from lft.seeding import generator
from lft.tasks.base import Phase, TaskFamily
from lft.theory import design
from lft.theory.design import Case, Draws
from lft.types import Batch, Params, TaskBatch

pytestmark = pytest.mark.usefixtures("float64")


def test_the_cases_vary_both_sizes_then_one_then_k() -> None:
    # Sizes 2 and 4, the fixed one 3, K of 1 and 5.
    assert design.cases(settings()) == [
        Case(2, 2, 5), Case(4, 4, 5), Case(2, 4, 5), Case(3, 2, 5), Case(3, 4, 5),
        Case(3, 3, 1), Case(3, 3, 5),
    ]  # fmt: skip
    assert design.frozen_cases(settings()) == [
        Case(2, 2, 5), Case(4, 4, 5), Case(2, 4, 5), Case(4, 2, 5),
    ]  # fmt: skip


def image_draws() -> Draws:
    return design.sample_draws(classification(), settings(), generator("draws"))


def test_draws_of_a_task_share_classes_and_start_but_no_image() -> None:
    draws = image_draws()
    sets = draws.support, draws.fresh, draws.query, draws.held
    assert [batch.size for batch in sets] == [2 * 4, 2 * 4, 2 * 4, 2 * settings().sigma_size]
    for task in range(N_TASKS):
        indices = range(task * N_DRAWS, (task + 1) * N_DRAWS)
        labels = draws.support.y[indices[0]].tolist()
        assert labels == [labels[0]] * 4 + [labels[-1]] * 4
        seen: set[tuple[float, ...]] = set()
        for index in indices:
            torch.testing.assert_close(
                vector(of_task(draws.start, index)), vector(of_task(draws.start, indices[0]))
            )
            for batch in sets:
                n = batch.size // 2
                assert batch.y[index].tolist() == [labels[0]] * n + [labels[-1]] * n
                seen |= {tuple(image.tolist()) for image in batch.x[index].flatten(1)}
        assert len(seen) == N_DRAWS * sum(batch.size for batch in sets)


def test_images_keep_their_labels() -> None:
    images = tiny_images(1, 12, 60)
    family, draws = classification(), image_draws()
    pixels = (images.train_images.to(torch.float64) / 255 - family.mean) / family.std
    known = {
        tuple(image.tolist()): int(label)
        for image, label in zip(pixels.flatten(1), images.train_labels, strict=True)
    }
    for batch in draws[:4]:
        assert isinstance(batch, Batch)
        for image, label in zip(batch.x.flatten(0, 1).flatten(1), batch.y.flatten(), strict=True):
            assert known[tuple(image.tolist())] == label


def test_smaller_sets_are_parts_of_larger_ones_of_every_class() -> None:
    batch = Batch(torch.arange(12).view(1, 12, 1), torch.arange(12).view(1, 12))
    assert design.first(batch, 3, 2).y.tolist() == [[0, 1, 4, 5, 8, 9]]
    assert design.first(batch, 3, 4).y.tolist() == [list(range(12))]


def test_too_few_images_are_one_line() -> None:
    # Of 60 a fifth is for meta-validation; a draw needs 6 for D_tr, D_new and D_val, and 3 for σ.
    with pytest.raises(UsageError, match="48 usable images for meta-train, but a task needs 63"):
        design.sample_draws(classification(), settings(sizes=(2, 6), draws=3), generator("draws"))


class PointSettings(FamilySettings):
    """Of a plug-in whose sets have one size."""

    kind: Literal["points"] = "points"
    points: int = 4


class Sized(PointSettings):
    support: int = 4
    query: int = 4


class PlugIn(TaskFamily):
    """Least squares of a plug-in, which follows its settings or does not."""

    def __init__(self, settings: FamilySettings, *, follows: bool = True) -> None:
        self.settings, self.follows = settings, follows

    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        family = LeastSquares()
        if self.follows and isinstance(self.settings, Sized):
            family = LeastSquares(self.settings.support, self.settings.query)
        return family.sample(n_tasks, generator, phase)

    def init(self, n_tasks: int, generator: Generator) -> Params:
        return LeastSquares().init(n_tasks, generator)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        return LeastSquares().loss(params, batch)

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.loss(params, batch)}


def test_a_plug_in_family_needs_no_more_than_its_settings() -> None:
    drawn = design.sample_draws(PlugIn(Sized()), settings(), generator("draws"))
    assert (drawn.support.size, drawn.held.size) == (4, settings().sigma_size)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (PlugIn(PointSettings()), "tasks of kind 'points' cannot be resized"),
        (PlugIn(Sized(), follows=False), "asked PlugIn for 24 examples of a task and got 4"),
    ],
)
def test_a_plug_in_family_that_cannot_be_measured_is_one_line(family: PlugIn, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        design.sample_draws(family, settings(), generator("draws"))
    assert "\n" not in str(refusal.value)
