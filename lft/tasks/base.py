"""The interface of a task family."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, Protocol, Self

import torch
from torch import Generator, Tensor

from lft.types import Batch, Params, TaskBatch

if TYPE_CHECKING:
    from lft.config import FamilySettings

Phase = Literal["train", "validation", "test"]


class Objective(Protocol):
    """What fine-tuning minimises."""

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """f(θ; D) of every task, (B,)."""


class TaskFamily(ABC):
    """Tasks that share the shape of their parameters; incongruous training mixes families.

    Attributes:
        settings: what the family is; they built it.
        dtype: of inputs and parameters.
    """

    settings: FamilySettings
    dtype: torch.dtype = torch.float32

    @abstractmethod
    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        """Draw B = ``n_tasks`` tasks; the phases draw from disjoint examples."""

    @abstractmethod
    def init(self, n_tasks: int, generator: Generator) -> Params:
        """Random θ⁽⁰⁾ for B tasks, each (B, …)."""

    @abstractmethod
    def loss(self, params: Params, batch: Batch) -> Tensor:
        """f(θ; D) of every task, (B,)."""

    @abstractmethod
    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        """The metrics of the settings that belong to a single θ, for every task, each (B,)."""

    def score(self, params: Params, batch: Batch) -> Tensor:
        """What model selection minimises, (B,): the loss, if the family knows nothing better."""
        return self.loss(params, batch)

    def pictures(self, tasks: TaskBatch, params: Params) -> dict[str, Tensor]:
        """What fine-tuning made of tasks, as the report's pictures show it, every tensor (B, …).

        Called where the settings say ``pictures``: ``images`` (B, m, C, H, W) uint8, ``labels``
        (B, m), ``perturbation`` (B, C, H, W), and the classes seen without and with it, ``clean``
        and ``attacked`` (B, m).
        """
        raise NotImplementedError

    def resized(self, *, support: int, query: int) -> Self:
        """The same tasks with other sets; see :meth:`lft.config.FamilySettings.resized`."""
        other = copy.copy(self)
        other.settings = self.settings.resized(support=support, query=query)
        return other

    def double(self) -> Self:
        """The same tasks, everything in float64."""
        other = copy.copy(self)
        other.dtype = torch.float64
        return other


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
