"""The interface of a task family."""

from __future__ import annotations

from abc import ABC, abstractmethod
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


class Differentiated(ABC):
    """A family that takes derivatives by itself where it can, faster than autograd does.

    Methods return None where it cannot.
    """

    @abstractmethod
    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        """f(θ; D) of every task, (B,), and ∇_θ f, each (B, …), both detached."""

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params] | None:
        """K steps of gradient descent on the support sets (eq. 2).

        Returns:
            f(θ⁽ᴷ⁾; query) of every task, (B,), its gradient in θ⁽⁰⁾ and θ⁽ᴷ⁾, each (B, …).
        """
        return None
