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
    """A loss that fine-tuning minimises."""

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """f(θ; D) of every task, (B,)."""


class TaskFamily(ABC):
    """Tasks whose optimizees share one set of shapes; incongruous training mixes families.

    Attributes:
        settings: the settings that built the family.
        dtype: of inputs and parameters.
    """

    settings: FamilySettings
    dtype: torch.dtype = torch.float32

    @abstractmethod
    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        """Draw B = ``n_tasks`` tasks for a phase."""

    @abstractmethod
    def init(self, n_tasks: int, generator: Generator) -> Params:
        """Draw random θ⁽⁰⁾ for B = ``n_tasks`` tasks, each leaf (B, …)."""

    @abstractmethod
    def loss(self, params: Params, batch: Batch) -> Tensor:
        """f(θ; D) of every task, (B,)."""

    @abstractmethod
    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        """Metrics of the settings that a single θ determines, each (B,)."""

    def score(self, params: Params, batch: Batch) -> Tensor:
        """The criterion of model selection, lower is better, (B,); the loss by default."""
        return self.loss(params, batch)

    def pictures(self, tasks: TaskBatch, params: Params) -> dict[str, Tensor]:
        """Fine-tuned tasks as the report's pictures show them; called if settings ask for pictures.

        Returns:
            ``images`` (B, m, C, H, W) uint8, ``labels`` (B, m), ``perturbation`` (B, C, H, W), and
            the predicted classes without and with it, ``clean`` and ``attacked`` (B, m).
        """
        raise NotImplementedError

    def resized(self, *, support: int, query: int) -> Self:
        """Copy the family with other set sizes; see :meth:`lft.config.FamilySettings.resized`."""
        other = copy.copy(self)
        other.settings = self.settings.resized(support=support, query=query)
        return other

    def double(self) -> Self:
        """Copy the family with everything in float64."""
        other = copy.copy(self)
        other.dtype = torch.float64
        return other


class Differentiated(ABC):
    """A family that can compute derivatives itself, faster than autograd.

    A method returns None where it cannot; callers then use autograd.
    """

    @abstractmethod
    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        """f(θ; D) of every task, (B,), and ∇_θ f, each leaf (B, …), both detached."""

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params] | None:
        """Take K steps of gradient descent on the support sets (eq. 2).

        Args:
            params: θ⁽⁰⁾, each leaf (B, …).
            tasks: support and query sets.
            steps: K.
            step_size: α.

        Returns:
            f(θ⁽ᴷ⁾; query) of every task, (B,); its gradient with respect to θ⁽⁰⁾; and θ⁽ᴷ⁾. The
            leaves of both are (B, …).
        """
        return None
