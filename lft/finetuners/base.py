"""The interface that hand-designed and learned fine-tuners share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from lft.types import Params, State


class FineTuner(Protocol):
    """A pure update rule: θ⁽ᵏ⁾ = θ⁽ᵏ⁻¹⁾ − Δ⁽ᵏ⁾ with (Δ⁽ᵏ⁾, h⁽ᵏ⁾) = m(g⁽ᵏ⁻¹⁾, h⁽ᵏ⁻¹⁾) (eq. 3)."""

    def start(self, params: Params) -> State:
        """State before the first step, for parameters of these shapes, each (B, …)."""

    def step(self, state: State, params: Params, grads: Params) -> tuple[State, Params]:
        """One step. Leaves its arguments unchanged and is differentiable in all of them."""


@runtime_checkable
class InPlace(FineTuner, Protocol):
    """A fine-tuner with a large state, a tensor, that steps faster where it may overwrite it."""

    def advance(self, state: Tensor, params: Params, grads: Params) -> tuple[Tensor, Params]:
        """The same as :meth:`step`, but the state given may hold the new one afterwards."""
