"""Hand-designed fine-tuners: gradient descent (eq. 2) and Adam."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from lft.types import Params


class SGD:
    """θ ← θ − α g (eq. 2).

    Args:
        step_size: α, in units of parameter per unit of gradient.
    """

    def __init__(self, step_size: float) -> None:
        self.step_size = step_size

    def start(self, params: Params) -> None:
        """Return no state; gradient descent needs none."""

    def step(self, state: None, params: Params, grads: Params) -> tuple[None, Params]:
        """One step; see :class:`lft.finetuners.base.FineTuner`."""
        return None, {
            name: torch.add(params[name], grads[name], alpha=-self.step_size) for name in params
        }


class AdamState(TypedDict):
    """State of Adam.

    Attributes:
        mean: moving average of the gradient.
        square: moving average of its square.
        steps: steps done, (), float64 on the CPU.
    """

    mean: Params
    square: Params
    steps: Tensor


class Adam:
    """Adam (Kingma & Ba, 2015), with the update of ``torch.optim.Adam``.

    Args:
        step_size: α, about the largest change of a coordinate per step, in units of θ.
        betas: decay rates of the two moving averages.
        eps: added to the denominator.
    """

    def __init__(
        self,
        step_size: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.step_size = step_size
        self.betas = betas
        self.eps = eps

    def start(self, params: Params) -> AdamState:
        """Return zero moments, shaped as ``params``."""
        zeros = {name: torch.zeros_like(leaf) for name, leaf in params.items()}
        steps = torch.zeros((), dtype=torch.float64, device="cpu")
        return {"mean": zeros, "square": dict(zeros), "steps": steps}

    def step(self, state: AdamState, params: Params, grads: Params) -> tuple[AdamState, Params]:
        """One step; see :class:`lft.finetuners.base.FineTuner`."""
        first, second = self.betas
        means, squares = state["mean"], state["square"]
        steps = state["steps"] + 1
        mean = {name: torch.lerp(grads[name], means[name], first) for name in params}
        square = {name: second * squares[name] + (1 - second) * grads[name] ** 2 for name in params}
        scale = self.step_size / (1 - first ** float(steps))
        root = (1 - second ** float(steps)) ** 0.5
        updated = {
            name: params[name] - scale * mean[name] / (square[name].sqrt() / root + self.eps)
            for name in params
        }
        return {"mean": mean, "square": square, "steps": steps}, updated
