"""Gradient descent with momentum whose step size and momentum are meta-learned."""

from __future__ import annotations

import torch

from lft.types import Params

from . import ExampleNameSettings


def initial(settings: ExampleNameSettings) -> Params:
    """Return φ = (s, b); exp(s) is the step size and sigmoid(b) the momentum."""
    numbers = torch.tensor([-4.0, settings.momentum], dtype=torch.float32, device="cpu")
    return {"log_step": numbers[0], "momentum": numbers[1].logit()}


class ExampleName:
    """v ← β v + g, θ ← θ − exp(s) v with β = sigmoid(b); all coordinates share φ = (s, b).

    Args:
        weights: φ, with names and shapes as in :func:`initial`.
    """

    def __init__(self, weights: Params) -> None:
        self.weights = weights

    def start(self, params: Params) -> Params:
        """Return velocity 0 for every coordinate."""
        return {name: torch.zeros_like(leaf) for name, leaf in params.items()}

    def step(self, state: Params, params: Params, grads: Params) -> tuple[Params, Params]:
        """Take one step, without changing the arguments; differentiable in all of them."""
        beta, rate = self.weights["momentum"].sigmoid(), self.weights["log_step"].exp()
        velocity = {name: beta * state[name] + grads[name] for name in params}
        return velocity, {name: params[name] - rate * velocity[name] for name in params}
