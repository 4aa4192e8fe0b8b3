"""The interface of hand-designed and learned fine-tuners; one step is eq. 3.

:mod:`lft.finetuners.lstm` takes it with the LSTM, :mod:`lft.finetuners.gradient_descent` with SGD
and Adam.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from lft.types import Params, State


class FineTuner(Protocol):
    """A pure update rule: θ⁽ᵏ⁾ = θ⁽ᵏ⁻¹⁾ − Δ⁽ᵏ⁾ with (Δ⁽ᵏ⁾, h⁽ᵏ⁾) = m(g⁽ᵏ⁻¹⁾, h⁽ᵏ⁻¹⁾) (eq. 3)."""

    def start(self, params: Params) -> State:
        """Return the state before the first step, for parameters of these shapes, each (B, …)."""

    def step(self, state: State, params: Params, grads: Params) -> tuple[State, Params]:
        """Take one step, without changing the arguments; differentiable in all of them.

        Args:
            state: h⁽ᵏ⁻¹⁾.
            params: θ⁽ᵏ⁻¹⁾, each (B, …).
            grads: g⁽ᵏ⁻¹⁾, each (B, …).

        Returns:
            h⁽ᵏ⁾ and θ⁽ᵏ⁾.
        """


@runtime_checkable
class SegmentVJP(FineTuner, Protocol):
    """A fine-tuner that differentiates a whole segment in φ faster than autograd.

    It must be coordinate-wise, and its updates must not depend on θ.
    """

    def segment_vjp(self, start: State, inputs: Tensor, cotangents: Tensor) -> Params | None:
        """Compute Σ_k ⟨c_k, ∂Δ⁽ᵏ⁾/∂φ⟩ over a segment, with constant inputs.

        Args:
            start: state before the segment.
            inputs: g⁽⁰⁾ … g⁽ᴷ⁻¹⁾, (K, N) for the N = B · P coordinates of all tasks.
            cotangents: c_k of the updates, (K, N).

        Returns:
            The gradient of each weight, or None if not supported.
        """


@runtime_checkable
class InPlace(FineTuner, Protocol):
    """A fine-tuner whose state is a large tensor; it steps faster by overwriting it."""

    def advance(self, state: Tensor, params: Params, grads: Params) -> tuple[Tensor, Params]:
        """Take one step as :meth:`step` does, but allow ``state`` to be overwritten."""
