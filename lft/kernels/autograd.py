"""Kernels of networks with weights of their own for every task, as functions of torch's tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lft.types import Batch, Params, TaskBatch

Plain = Callable[[Params], Tensor]
"""A loss in PyTorch; it is differentiated instead of the kernel's where the graph is kept
(``create_graph``), as second derivatives need it."""


class NetworkKernel:
    """Loss, gradients and gradient descent of one kind of network.

    Everywhere parameters are in the order of the kernel, and tensors need not be contiguous.

    Args:
        name: what the names of the operators begin with.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def loss(self, params: Params, x: Tensor, y: Tensor, plain: Plain) -> Tensor:
        """The loss of each task (B,), differentiable in the parameters.

        Args:
            params: those of B networks.
            x: inputs (B, n, …).
            y: labels (B, n) or targets.
            plain: the same loss, for second derivatives.

        Raises:
            RuntimeError: a shape, dtype or label does not fit.
        """
        losses: Tensor = _Loss.apply(self, plain, tuple(params), x, y, *params.values())
        return losses

    @torch.no_grad()
    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params]:
        """The loss of each task (B,) and its gradients, without autograd.

        Raises:
            RuntimeError: a shape, dtype or label does not fit.
        """
        losses, gradients = self.operator("loss_and_gradients", params.values(), batch)
        return losses, dict(zip(params, gradients, strict=True))

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params]:
        """θ⁽ᴷ⁾ by gradient descent on the support set (eq. 2), and what MAML asks of it (eq. 1).

        Returns:
            f(θ⁽ᴷ⁾; query) of each task (B,), its gradient in θ⁽⁰⁾, and θ⁽ᴷ⁾.

        Raises:
            RuntimeError: a shape, dtype or label does not fit.
        """
        tensors = (tensor for batch in tasks for tensor in batch)
        losses, gradients, ends = self.operator(
            "descend", params.values(), tensors, steps, step_size
        )
        return (
            losses,
            dict(zip(params, gradients, strict=True)),
            dict(zip(params, ends, strict=True)),
        )

    def operator(
        self, name: str, leaves: Iterable[Tensor], tensors: Iterable[Tensor], *numbers: float
    ) -> Any:
        """Call one of the native operators."""
        function = getattr(torch.ops.lft, f"{self._name}_{name}")
        return function(
            [leaf.contiguous() for leaf in leaves], *(x.contiguous() for x in tensors), *numbers
        )


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: NetworkKernel,
        plain: Plain,
        names: tuple[str, ...],
        x: Tensor,
        y: Tensor,
        *leaves: Tensor,
    ) -> Tensor:
        losses: Tensor
        losses, gradients = kernel.operator("loss_and_gradients", leaves, (x, y))
        ctx.plain, ctx.names = plain, names
        ctx.save_for_backward(*leaves, *gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, d_losses: Tensor) -> tuple[Tensor | None, ...]:
        leaves = ctx.saved_tensors[: len(ctx.names)]
        gradients = ctx.saved_tensors[len(ctx.names) :]
        if torch.is_grad_enabled():
            losses = ctx.plain(dict(zip(ctx.names, leaves, strict=True)))
            scaled = torch.autograd.grad(losses, leaves, d_losses, create_graph=True)
        else:
            scaled = tuple(g * d_losses.view(-1, *[1] * (g.dim() - 1)) for g in gradients)
        return (None, None, None, None, None, *scaled)
