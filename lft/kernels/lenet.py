"""The convolutions of LeNet-5 with constant weights, as native kernels.

Two layers of 5×5 convolution, 2×2 max-pooling and ReLU, forward and back to the images, one image
at a time while its activations stay in cache. Where several pixels of a pooling window are equally
large they share the gradient, as in ``torch.amax``. float32, CPU; results do not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def features(weights: list[Tensor], images: Tensor, plain: Callable[[Tensor], Tensor]) -> Tensor:
    """Features (n, F · 25), differentiable in the images but not in the weights.

    Args:
        weights: weight and bias of both convolutions, as of ``torch.nn.Conv2d``.
        images: (n, C, S, S) with S 28 (padded by 2) or 32.
        plain: the same function in PyTorch; it is differentiated instead where the graph is kept
            (``create_graph``), as second derivatives need it.

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
    """Features, as of :func:`features`, and what takes their gradient back to the images."""
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
        result, ctx.pullback = with_pullback(weights, images)
        ctx.plain = plain
        ctx.save_for_backward(images)
        return result

    @staticmethod
    def backward(ctx: Any, d_features: Tensor) -> tuple[Tensor | None, ...]:
        (images,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            (gradient,) = torch.autograd.grad(
                ctx.plain(images), images, d_features, create_graph=True
            )
        else:
            gradient = ctx.pullback(d_features)
        return None, gradient, None
