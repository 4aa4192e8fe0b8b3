"""Convolutional networks with weights of their own for every task, as native kernels.

For the networks of :class:`lft.tasks.networks.CNN`: convolutions of kernel 3, stride 2 and padding
1 with ReLU, then a linear layer. One image at a time goes forward and back through all layers while
its activations stay in cache; the gradient of the mean cross-entropy is computed with the loss.
float32, CPU; results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lft.types import Params

Loss = Callable[[Params], Tensor]


def logits(params: Params, x: Tensor) -> Tensor:
    """Outputs (B, n, outputs) for images (B, n, C, H, W); no derivative is recorded.

    Args:
        params: in the order and shapes of ``CNN.init``.

    Raises:
        RuntimeError: a shape or dtype does not fit.
    """
    outputs: Tensor = torch.ops.lft.cnn_forward(_contiguous(params), x.contiguous())
    return outputs


def cross_entropy(params: Params, x: Tensor, y: Tensor, plain: Loss) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of each task (B,), differentiable in the parameters, and detached logits.

    Args:
        params: in the order and shapes of ``CNN.init``.
        x: images (B, n, C, H, W).
        y: labels (B, n).
        plain: the same loss in PyTorch; it is differentiated instead where the graph is kept
            (``create_graph``), as second derivatives need it.

    Raises:
        RuntimeError: a shape, dtype or label does not fit.
    """
    losses, outputs = _CrossEntropy.apply(plain, tuple(params), x, y, *params.values())
    return losses, outputs


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plain: Loss, names: tuple[str, ...], x: Tensor, y: Tensor, *leaves: Tensor
    ) -> tuple[Tensor, Tensor]:
        params = dict(zip(names, leaves, strict=True))
        losses, outputs, gradients = torch.ops.lft.cnn_loss_and_gradients(
            _contiguous(params), x.contiguous(), y.contiguous()
        )
        ctx.plain, ctx.names = plain, names
        ctx.save_for_backward(*leaves, *gradients)
        ctx.mark_non_differentiable(outputs)
        return losses, outputs

    @staticmethod
    def backward(ctx: Any, d_losses: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        leaves = ctx.saved_tensors[: len(ctx.names)]
        gradients = ctx.saved_tensors[len(ctx.names) :]
        if torch.is_grad_enabled():
            losses = ctx.plain(dict(zip(ctx.names, leaves, strict=True)))
            scaled = torch.autograd.grad(losses, leaves, d_losses, create_graph=True)
        else:
            scaled = tuple(g * d_losses.view(-1, *[1] * (g.dim() - 1)) for g in gradients)
        return (None, None, None, None, *scaled)


def _contiguous(params: Params) -> list[Tensor]:
    return [leaf.contiguous() for leaf in params.values()]
