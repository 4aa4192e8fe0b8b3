"""The interface that hand-designed and learned fine-tuners share: one step of it is eq. 3.

The LSTM computes its step in :mod:`lft.finetuners.lstm`, SGD and Adam in
:mod:`lft.finetuners.gradient_descent`.
"""

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
class SegmentVJP(FineTuner, Protocol):
    """A coordinate-wise fine-tuner whose updates do not depend on θ, and which can take their
    derivative in φ over a whole segment faster than autograd does."""

    def segment_vjp(self, start: State, inputs: Tensor, cotangents: Tensor) -> Params | None:
        """Σ_k ⟨c_k, ∂Δ⁽ᵏ⁾/∂φ⟩ over a segment whose inputs are constants.

        Args:
            start: state before the segment.
            inputs: gradients fed in, (K, N) for the N = B · P coordinates of all tasks.
            cotangents: c_k of the updates, (K, N).

        Returns:
            The gradient for each weight, or None where it cannot.
        """


@runtime_checkable
class InPlace(FineTuner, Protocol):
    """A fine-tuner with a large state, a tensor, that steps faster where it may overwrite it."""

    def advance(self, state: Tensor, params: Params, grads: Params) -> tuple[Tensor, Params]:
        """The same as :meth:`step`, but the state given may hold the new one afterwards."""
