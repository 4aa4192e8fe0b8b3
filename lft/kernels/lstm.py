"""Native kernel for the coordinate-wise LSTM of :mod:`lft.finetuners.lstm`: float32 on the CPU.

For the gradient g of one coordinate, x = preprocess(g; p) (Andrychowicz et al., 2016, appendix A),
and layers l = 1 … L with inputs x⁽¹⁾ = x and x⁽ˡ⁾ = h⁽ˡ⁻¹⁾ compute

    i, f, g, o = σ, σ, tanh, σ of W_ih x⁽ˡ⁾ + W_hh h⁽ˡ⁾ + b
    c⁽ˡ⁾ ← f c⁽ˡ⁾ + i g        h⁽ˡ⁾ ← o tanh c⁽ˡ⁾        Δ = scale · (w_out · h⁽ᴸ⁾ + b_out)

The kernel takes a few dozen coordinates at a time through all layers, and in the backward pass
through all steps, so that activations never leave the cache. A segment's backward pass recomputes
them from the inputs. Coordinates are divided among torch's threads; results do not depend on how
many there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lft.types import Params


def shapes(layers: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights by name, in the order of the native code.

    Args:
        layers: L, the number of layers.
        hidden: H, cells per layer.

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
    """Take one step for N coordinates and overwrite the state; autograd records nothing (eq. 3).

    Args:
        weights: names and shapes as in :func:`shapes`, in any order.
        state: h and c of every coordinate, (2, L, H, N), contiguous.
        gradient: (N,). NaN and infinity propagate to the update as in plain PyTorch.
        p: log-magnitude range of the preprocessing, in (0, 80].
        scale: output scale, in units of the optimizee.

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
    """∇_weights Σ_k ⟨cotangents_k, Δ⁽ᵏ⁾⟩ over K steps, with constant inputs and start state.

    Results do not depend on the number of threads.

    Args:
        weights: as in :func:`step_`.
        start: state before the segment, (2, L, H, N).
        inputs: gradients fed to the LSTM, (K, N).
        cotangents: cotangents of the updates, (K, N).
        p: as in :func:`step_`.
        scale: as in :func:`step_`.

    Returns:
        The gradient of every weight, by name.

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
