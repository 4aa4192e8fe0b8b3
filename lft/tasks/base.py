"""The interface of a task family."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Generator, Tensor

from lft.types import Batch, Params, TaskBatch

Phase = Literal["train", "validation", "test"]


class Objective(Protocol):
    """What fine-tuning minimises."""

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """f(θ; D) of every task, (B,)."""


class TaskFamily(Objective, Protocol):
    """Tasks that share the shape of their parameters; incongruous training mixes families.

    Attributes:
        primary: the metric by which the family is judged.
    """

    primary: str

    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        """Draw B = ``n_tasks`` tasks; the phases draw from disjoint examples."""

    def init(self, n_tasks: int, generator: Generator) -> Params:
        """Random θ⁽⁰⁾ for B tasks, each (B, …)."""

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        """What is reported for every task, each (B,)."""
