"""Call the native kernels for batches of per-task networks on torch's tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lft.types import Batch, Params, TaskBatch

Plain = Callable[[Params], Tensor]
"""The loss in PyTorch. Autograd differentiates it instead of the kernel's loss when the graph is
kept (``create_graph``), because second derivatives need it."""


class NetworkKernel:
    """Loss, gradients and gradient descent of one kind of network.

    Parameters must be in the order of the kernel; tensors need not be contiguous.

    Args:
        name: prefix of the operators' names.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def loss(self, params: Params, x: Tensor, y: Tensor, plain: Plain) -> Tensor:
        """The loss of each task, (B,), differentiable in the parameters.

        Args:
            params: parameters of B networks, each leaf (B, …).
            x: inputs (B, n, …).
            y: labels (B, n) or targets (B, n, outputs).
            plain: the same loss in PyTorch, for second derivatives.

        Raises:
            RuntimeError: a shape, dtype or label does not fit.
        """
        losses: Tensor = _Loss.apply(self, plain, tuple(params), x, y, *params.values())
        return losses

    @torch.no_grad()
    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params]:
        """The loss of each task, (B,), and its gradients, each leaf (B, …), without autograd.

        Raises:
            RuntimeError: a shape, dtype or label does not fit.
        """
        losses, gradients = self.operator("loss_and_gradients", params.values(), batch)
        return losses, dict(zip(params, gradients, strict=True))

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params]:
        """Gradient descent on the support sets (eq. 2) and MAML's loss and meta-gradient (eq. 1).

        Args:
            params: θ⁽⁰⁾, each leaf (B, …).
            tasks: support and query sets.
            steps: K.
            step_size: α.

        Returns:
            f(θ⁽ᴷ⁾; query) of each task, (B,); its gradient with respect to θ⁽⁰⁾; and θ⁽ᴷ⁾.

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
        """Call a native operator by its name, without the prefix."""
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
        """Compute the losses and keep the kernel's gradients for the backward pass."""
        losses: Tensor
        losses, gradients = kernel.operator("loss_and_gradients", leaves, (x, y))
        ctx.plain, ctx.names = plain, names
        ctx.save_for_backward(*leaves, *gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, d_losses: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the kept gradients, or differentiate ``plain`` if the graph is kept."""
        leaves = ctx.saved_tensors[: len(ctx.names)]
        gradients = ctx.saved_tensors[len(ctx.names) :]
        if torch.is_grad_enabled():
            losses = ctx.plain(dict(zip(ctx.names, leaves, strict=True)))
            scaled = torch.autograd.grad(losses, leaves, d_losses, create_graph=True)
        else:
            scaled = tuple(g * d_losses.view(-1, *[1] * (g.dim() - 1)) for g in gradients)
        return (None, None, None, None, None, *scaled)
