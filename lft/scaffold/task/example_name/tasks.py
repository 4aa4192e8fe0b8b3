"""Tasks of linear regression; every tensor starts with the task axis B."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lft.tasks.base import Phase, TaskFamily
from lft.types import Batch, Params, TaskBatch

from . import ExampleNameSettings


class ExampleName(TaskFamily):
    """y = w · x with w and x standard normal.

    Args:
        settings: the family's section of the profile.
        device: where to put the tensors.
    """

    settings: ExampleNameSettings

    def __init__(self, settings: ExampleNameSettings, device: torch.device | str = "cpu") -> None:
        self.settings = settings
        self.device = device

    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        """Draw tasks. Every draw is new, so the phases never share a point."""
        truth = self._normal(n_tasks, self.settings.dimension, 1, generator=generator)

        def points(n: int) -> Batch:
            x = self._normal(n_tasks, n, self.settings.dimension, generator=generator)
            return Batch(x.to(self.device), (x @ truth)[:, :, 0].to(self.device))

        return TaskBatch(points(self.settings.support), points(self.settings.query))

    def init(self, n_tasks: int, generator: Generator) -> Params:
        """Draw random starts w⁽⁰⁾, (B, dimension)."""
        start = 0.1 * self._normal(n_tasks, self.settings.dimension, generator=generator)
        return {"w": start.to(self.device)}

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Return the mean squared error of each task, (B,)."""
        return self._errors(params, batch).square().mean(1)

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        """Return the metrics that the settings name, each (B,)."""
        worst = self._errors(params, batch).abs().amax(1)
        return {"mse": self.loss(params, batch), "worst_error": worst}

    def _errors(self, params: Params, batch: Batch) -> Tensor:
        return (batch.x @ params["w"][:, :, None])[:, :, 0] - batch.y

    def _normal(self, *shape: int, generator: Generator) -> Tensor:
        return torch.randn(shape, generator=generator, device=generator.device, dtype=self.dtype)
