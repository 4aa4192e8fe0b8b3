"""Native kernels for the convolutions of LeNet-5 with constant weights.

Two layers of 5×5 convolution, 2×2 max-pooling and ReLU, forward and back to the images. One image
at a time passes through both layers, so that its activations stay in cache. Pixels that tie for the
maximum of a pooling window share its gradient, as in ``torch.amax``. float32 on the CPU; results do
not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def features(weights: list[Tensor], images: Tensor, plain: Callable[[Tensor], Tensor]) -> Tensor:
    """Features (n, 400) of images, differentiable in the images but not in the weights.

    Args:
        weights: weight and bias of both convolutions, shaped as in ``torch.nn.Conv2d``.
        images: (n, C, S, S) with S = 28 (padded by 2) or 32.
        plain: the same function in PyTorch. Autograd differentiates it when the graph is kept
            (``create_graph``), because second derivatives need it.

    Raises:
        RuntimeError: a shape or dtype does not fit.
    """
    if torch.is_grad_enabled() and images.requires_grad:
        result: Tensor = _Features.apply(plain, images, weights)
    else:
        result, _ = torch.ops.lft.lenet_forward(weights, images.contiguous())
    return result


def with_pullback(
    weights: list[Tensor], images: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Features as in :func:`features`, and their pullback to the images.

    Returns:
        Features (n, 400), and a function that maps a gradient with respect to them to the gradient
        with respect to the images.

    Raises:
        RuntimeError: a shape or dtype does not fit.
    """
    result, codes = torch.ops.lft.lenet_forward(weights, images.contiguous())

    def pullback(d_features: Tensor) -> Tensor:
        side = images.shape[-1]
        gradient: Tensor = torch.ops.lft.lenet_backward(
            weights, codes, d_features.contiguous(), side
        )
        return gradient

    return result, pullback


class _Features(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plain: Callable[[Tensor], Tensor], images: Tensor, weights: list[Tensor]
    ) -> Tensor:
        """Compute the features and keep their pullback."""
        result, ctx.pullback = with_pullback(weights, images)
        ctx.plain = plain
        ctx.save_for_backward(images)
        return result

    @staticmethod
    def backward(ctx: Any, d_features: Tensor) -> tuple[Tensor | None, ...]:
        """Apply the pullback, or differentiate ``plain`` if the graph is kept."""
        (images,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            (gradient,) = torch.autograd.grad(
                ctx.plain(images), images, d_features, create_graph=True
            )
        else:
            gradient = ctx.pullback(d_features)
        return None, gradient, None
