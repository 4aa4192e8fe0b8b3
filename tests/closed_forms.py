"""Task families whose gradients, Hessians and smoothed losses are known in closed form."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Generator, Tensor

from lft.config import LearnedTuner
from lft.kernels.build import Kernel
from lft.types import Batch, Params, TaskBatch


class LeastSquares:
    """f(θ; D) = 1/(2n) Σ_j (x_j · θ − y_j)²: gradient Aθ − b with A = XᵀX / n and b = Xᵀy / n.

    θ lies in two leaves of different shapes, so that flattening has something to get wrong.
    """

    primary = "loss"

    def __init__(self, support: int = 4, query: int = 4) -> None:
        self.sizes = support, query

    def sample(self, n_tasks: int, generator: Generator, phase: str = "train") -> TaskBatch:
        def points(n: int) -> Batch:
            x = torch.randn(n_tasks, n, 3, generator=generator)
            return Batch(x, torch.randn(n_tasks, n, generator=generator))

        return TaskBatch(*map(points, self.sizes))

    def init(self, n_tasks: int, generator: Generator) -> Params:
        return self.params(torch.randn(n_tasks, 3, generator=generator))

    @staticmethod
    def params(theta: Tensor) -> Params:
        return {"pair": theta[:, :2].reshape(-1, 2, 1), "single": theta[:, 2:]}

    @staticmethod
    def vector(params: Params) -> Tensor:
        """(B, 3)."""
        return torch.cat([params["pair"].flatten(1), params["single"]], dim=1)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        predicted = torch.einsum("bnd,bd->bn", batch.x, self.vector(params))
        return (predicted - batch.y).square().mean(1) / 2

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.loss(params, batch)}


class Elementwise:
    """f(θ; D) = Σ_d s(θ_d) · mean(y), for a function s of one variable."""

    primary = "loss"

    def __init__(self, function: Any) -> None:
        self.function = function

    def sample(self, n_tasks: int, generator: Generator, phase: str = "train") -> TaskBatch:
        def points() -> Batch:
            y = 0.5 + torch.rand(n_tasks, 3, generator=generator)
            return Batch(torch.zeros(n_tasks, 3, 1), y)

        return TaskBatch(points(), points())

    def init(self, n_tasks: int, generator: Generator) -> Params:
        return {"theta": torch.randn(n_tasks, 2, generator=generator)}

    def loss(self, params: Params, batch: Batch) -> Tensor:
        return self.function(params["theta"]).sum(1) * batch.y.mean(1)

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.loss(params, batch)}


class LearnedRate:
    """θ ← θ − r g with the step size r as the only meta-parameter; a learned fine-tuner.

    On least squares every outer loss is a polynomial in r.
    """

    def __init__(self, weights: Params) -> None:
        self.rate = weights["rate"]

    def start(self, params: Params) -> None:
        """Keeps no state."""

    def step(self, state: None, params: Params, grads: Params) -> tuple[None, Params]:
        return None, {name: params[name] - self.rate * grads[name] for name in params}


class LearnedRateSettings(LearnedTuner):
    """Settings of :class:`LearnedRate`; a test registers them for its own time."""

    kind: Literal["rate"] = "rate"

    def initial(self, generator: Generator) -> Params:
        return {"rate": torch.tensor(0.3)}

    def build(self, weights: Params, kernel: Kernel = "auto") -> LearnedRate:
        return LearnedRate(weights)
