"""The coordinate-wise LSTM of :mod:`lft.finetuners.lstm` as a native kernel: float32, CPU.

For a gradient g of one coordinate, x = preprocess(g; p) (Andrychowicz et al., 2016, appendix A) and
layers l = 1 … L with input x⁽ˡ⁾ (x⁽¹⁾ = x, x⁽ˡ⁾ = h⁽ˡ⁻¹⁾)

    i, f, g, o = σ, σ, tanh, σ of W_ih x⁽ˡ⁾ + W_hh h⁽ˡ⁾ + b
    c⁽ˡ⁾ ← f c⁽ˡ⁾ + i g        h⁽ˡ⁾ ← o tanh c⁽ˡ⁾        Δ = scale · (w_out · h⁽ᴸ⁾ + b_out)

The kernel takes a few dozen coordinates at a time through all layers, and in the backward pass
through all steps, so that activations never leave the cache: a segment's backward pass computes
them again from the inputs. Coordinates are spread over torch's threads; results do not depend on
how many.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lft.types import Params


def shapes(layers: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by its name, in the order of the native code.

    Returns:
        ``layer<l>.w_ih`` (4H, in), ``layer<l>.w_hh`` (4H, H), ``layer<l>.b`` (4H) with gates in
        the order input, forget, cell, output; ``out.w`` (H,), ``out.b`` ().
    """
    result: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        result[f"layer{layer}.w_ih"] = (4 * hidden, hidden if layer else 2)
        result[f"layer{layer}.w_hh"] = (4 * hidden, hidden)
        result[f"layer{layer}.b"] = (4 * hidden,)
    return result | {"out.w": (hidden,), "out.b": ()}


def step_(weights: Params, state: Tensor, gradient: Tensor, *, p: float, scale: float) -> Tensor:
    """One step of N coordinates, which overwrites the state; no derivative is recorded.

    Args:
        weights: as :func:`shapes` names and shapes them, in any order.
        state: (2, L, H, N), h and c of every coordinate, contiguous.
        gradient: (N,). NaN and infinity reach the update as they do in plain PyTorch.
        p: range of the preprocessing's logarithm, in (0, 80].
        scale: factor of the update, in units of the optimizee.

    Returns:
        The update Δ (N,).

    Raises:
        RuntimeError: a shape, dtype or p does not fit.
    """
    tensors = [weights[name].contiguous() for name in shapes(*state.shape[1:3])]
    update: Tensor = torch.ops.lft.lstm_step_(tensors, state, gradient.contiguous(), p, scale)
    return update


def segment_vjp(
    weights: Params, start: Tensor, inputs: Tensor, cotangents: Tensor, *, p: float, scale: float
) -> Params:
    """∇_weights Σ_k ⟨cotangents_k, Δ⁽ᵏ⁾⟩ over K steps, inputs and start state being constants.

    The same numbers come out for any number of threads.

    Args:
        weights: as in :func:`step_`.
        start: (2, L, H, N), the state before the segment.
        inputs: (K, N), the gradients fed in.
        cotangents: (K, N), of the updates.
        p: as in :func:`step_`.
        scale: as in :func:`step_`.

    Returns:
        A gradient for every weight, under its name.

    Raises:
        RuntimeError: a shape, dtype or p does not fit.
    """
    names = shapes(*start.shape[1:3])
    gradients = torch.ops.lft.lstm_segment_vjp(
        [weights[name].contiguous() for name in names],
        start.contiguous(),
        inputs.contiguous(),
        cotangents.contiguous(),
        p,
        scale,
    )
    return dict(zip(names, gradients, strict=True))
