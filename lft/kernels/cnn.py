"""Convolutional networks with weights of their own for every task, as native kernels.

For the networks of :class:`lft.tasks.networks.CNN`: convolutions of kernel 3, stride 2 and padding
1 with ReLU, then a linear layer. One image at a time goes forward and back through all layers while
its activations stay in cache; the gradient of the mean cross-entropy is computed with the loss. The
Hessian times a vector, for MAML, is the derivative of all that along the vector. float32, CPU;
results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lft.kernels import build as native
from lft.types import Batch, Params, TaskBatch


def logits(params: Params, x: Tensor) -> Tensor:
    """Outputs (B, n, outputs) for images (B, n, C, H, W); no derivative is recorded.

    Args:
        params: in the order and shapes of ``CNN.init``.

    Raises:
        RuntimeError: a shape or dtype does not fit.
    """
    leaves = [leaf.contiguous() for leaf in params.values()]
    outputs: Tensor = torch.ops.lft.cnn_forward(leaves, x.contiguous())
    return outputs


def cross_entropy(
    params: Params, x: Tensor, y: Tensor, plain: Callable[[Params], Tensor]
) -> Tensor:
    """Mean cross-entropy of each task (B,), differentiable in the parameters.

    Args:
        params: in the order and shapes of ``CNN.init``.
        x: images (B, n, C, H, W).
        y: labels (B, n).
        plain: the same loss in PyTorch; see :func:`lft.kernels.build.loss`.

    Raises:
        RuntimeError: a shape, dtype or label does not fit.
    """
    return native.loss(torch.ops.lft.cnn_loss_and_gradients, params, x, y, plain)


def loss_and_gradients(params: Params, batch: Batch) -> tuple[Tensor, Params]:
    """See :func:`lft.kernels.build.loss_and_gradients`; arguments as of :func:`cross_entropy`."""
    return native.loss_and_gradients(torch.ops.lft.cnn_loss_and_gradients, params, batch)


def descend(
    params: Params, tasks: TaskBatch, steps: int, step_size: float
) -> tuple[Tensor, Params, Params]:
    """See :func:`lft.kernels.build.descend`; arguments as of :func:`cross_entropy`."""
    return native.descend(torch.ops.lft.cnn_descend, params, tasks, steps, step_size)
