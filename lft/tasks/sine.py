"""Sine regression (sec. 5 and supplement G; Finn et al., 2017, sec. 5.1)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lft.config import SineFamily
from lft.kernels.build import Kernel
from lft.tasks.base import Phase
from lft.tasks.networks import MLP, NetworkFamily
from lft.types import Batch, Params, TaskBatch


class Sine(NetworkFamily):
    """Regress y = a sin(x + b) for x uniform in [−5, 5); amplitude a and phase b vary by task.

    Args:
        settings: set sizes, ranges of a and b, hidden widths.
        device: of tasks and parameters.
        kernel: as for :class:`lft.tasks.networks.Network`.
    """

    settings: SineFamily
    network: MLP

    def __init__(
        self,
        settings: SineFamily,
        device: torch.device | str = "cpu",
        kernel: Kernel = "auto",
    ) -> None:
        self.settings = settings
        self.device = device
        self.network = MLP((1, *settings.hidden, 1), kernel, settings.activation)

    def sample(self, n_tasks: int, generator: Generator, phase: Phase = "train") -> TaskBatch:
        """Draw support and query points (B, n, 1). Phases differ only in their random draws."""
        amplitude = self._between(self.settings.amplitude, n_tasks, generator)
        shift = self._between(self.settings.phase, n_tasks, generator)

        def points(n: int) -> Batch:
            x = 10 * self._uniform((n_tasks, n, 1), generator) - 5
            y = amplitude * torch.sin(x + shift)
            return Batch(x.to(self.device), y.to(self.device))

        return TaskBatch(points(self.settings.support), points(self.settings.query))

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Mean squared error of each task, (B,)."""
        return self.network.squared_error(params, batch.x, batch.y)

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        """``mse``: mean squared error of each task, (B,)."""
        return {"mse": self.loss(params, batch)}

    def _between(self, bounds: tuple[float, float], n_tasks: int, generator: Generator) -> Tensor:
        low, high = bounds
        return low + (high - low) * self._uniform((n_tasks, 1, 1), generator)

    def _uniform(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device, dtype=self.dtype)
