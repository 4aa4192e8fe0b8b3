"""Fully connected networks with weights of their own for every task, as native kernels.

For the networks of :class:`lft.tasks.networks.MLP`, h⁽ˡ⁾ = relu(z⁽ˡ⁾) with z⁽ˡ⁾ = h⁽ˡ⁻¹⁾ W + b, and
d⁽ˡ⁾ = ∂f/∂z⁽ˡ⁾ of a mean loss f of the outputs z⁽ᴸ⁾:

    d⁽ˡ⁾ = 1[h⁽ˡ⁾ > 0] d⁽ˡ⁺¹⁾ Wᵀ        ∂f/∂W = h⁽ˡ⁻¹⁾ᵀ d⁽ˡ⁾        ∂f/∂b = Σ d⁽ˡ⁾

The Hessian times a vector, which MAML's meta-gradient needs once a step, is the derivative of these
lines along the vector (Pearlmutter, 1994). Labels (B, n) ask for the mean cross-entropy, targets
(B, n, out) for the mean squared error. float32, CPU; any number of threads gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lft.kernels import build as native
from lft.types import Batch, Params, TaskBatch


def loss(params: Params, x: Tensor, y: Tensor, plain: Callable[[Params], Tensor]) -> Tensor:
    """The loss of each task (B,), differentiable in the parameters.

    Args:
        params: in the order and shapes of ``MLP.init``.
        x: inputs (B, n, in).
        y: labels or targets.
        plain: the same loss in PyTorch; see :func:`lft.kernels.build.loss`.

    Raises:
        RuntimeError: a shape, dtype or label does not fit.
    """
    return native.loss(torch.ops.lft.mlp_loss_and_gradients, params, x, y, plain)


def loss_and_gradients(params: Params, batch: Batch) -> tuple[Tensor, Params]:
    """See :func:`lft.kernels.build.loss_and_gradients`; arguments as of :func:`loss`."""
    return native.loss_and_gradients(torch.ops.lft.mlp_loss_and_gradients, params, batch)


def descend(
    params: Params, tasks: TaskBatch, steps: int, step_size: float
) -> tuple[Tensor, Params, Params]:
    """See :func:`lft.kernels.build.descend`; arguments as of :func:`loss`."""
    return native.descend(torch.ops.lft.mlp_descend, params, tasks, steps, step_size)
