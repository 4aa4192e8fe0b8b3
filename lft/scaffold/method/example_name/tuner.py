"""Gradient descent with momentum whose step size and momentum are meta-learned."""

from __future__ import annotations

import torch
from torch import Generator

from lft.config import LSTMSettings
from lft.types import Params


class ExampleName:
    """v ← β v + g, θ ← θ − exp(s) v with β = sigmoid(b); all coordinates share φ = (s, b).

    Args:
        weights: φ, as :meth:`initial` names and shapes it.
        settings: those of the profile's key ``finetuner``.
    """

    def __init__(self, weights: Params, settings: LSTMSettings) -> None:
        self.weights = weights

    @staticmethod
    def initial(settings: LSTMSettings, generator: Generator) -> Params:
        """φ before meta-training."""
        return {"log_step": torch.tensor(-4.0), "momentum": torch.tensor(0.0)}

    def start(self, params: Params) -> Params:
        """Velocity 0 of every coordinate."""
        return {name: torch.zeros_like(leaf) for name, leaf in params.items()}

    def step(self, state: Params, params: Params, grads: Params) -> tuple[Params, Params]:
        """One step; leaves its arguments unchanged and is differentiable in all of them."""
        beta, rate = self.weights["momentum"].sigmoid(), self.weights["log_step"].exp()
        velocity = {name: beta * state[name] + grads[name] for name in params}
        return velocity, {name: params[name] - rate * velocity[name] for name in params}
