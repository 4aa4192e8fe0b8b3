"""Gradient descent differentiated by autograd: what the native kernels' own derivatives must be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lft.meta.gradients import value_and_grad
from lft.types import Batch, Params, TaskBatch

STEPS, STEP_SIZE = 3, 0.1
# float32 sums over a task's examples and inputs.
TOLERANCE = 1e-5

Descent = tuple[Tensor, Params, Params]
"""f(θ⁽ᴷ⁾; query) of each task, its gradient in θ⁽⁰⁾, and θ⁽ᴷ⁾."""


def double(params: Params, tasks: TaskBatch) -> tuple[Params, TaskBatch]:
    def doubled(leaf: Tensor) -> Tensor:
        return leaf.double() if leaf.is_floating_point() else leaf

    batches = (Batch(doubled(part.x), doubled(part.y)) for part in tasks)
    return {name: leaf.double() for name, leaf in params.items()}, TaskBatch(*batches)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= tolerance * expected.norm()


def descended(family: Any, start: Params, tasks: TaskBatch) -> Descent:
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in start.items()}
    params = leaves
    for _ in range(STEPS):
        _, grads = value_and_grad(family, params, tasks.support, create_graph=True)
        params = {name: leaf - STEP_SIZE * grads[name] for name, leaf in params.items()}
    losses = family.loss(params, tasks.query)
    grads = torch.autograd.grad(losses.sum(), list(leaves.values()))
    ends = {name: leaf.detach() for name, leaf in params.items()}
    return losses.detach(), dict(zip(leaves, grads, strict=True)), ends


def natively(fused: Any, params: Params, tasks: TaskBatch, steps: int = STEPS) -> Descent:
    found: Descent | None = fused.network.descend(params, tasks, steps, STEP_SIZE)
    assert found is not None
    return found


class _NearestKink(TorchDispatchMode):
    """Notes how near to zero the inputs of ReLUs come."""

    distance = torch.inf

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.relu.default:
            self.distance = min(self.distance, float(args[0].abs().min()))
        return func(*args, **(kwargs or {}))


def far_from_kinks(plain: Any, params: Params, tasks: TaskBatch) -> bool:
    """Whether rounding to float32 leaves every ReLU of the descent on its side of zero.

    Otherwise gradients may differ by a few per cent, on one processor and not on another.
    """
    with _NearestKink() as nearest:
        descended(plain, *double(params, tasks))
    return nearest.distance > TOLERANCE / 10


def check_descent(fused: Any, plain: Any, params: Params, tasks: TaskBatch) -> None:
    """A kernel in float32 against the plain path in float64."""
    losses, grads, ends = natively(fused, params, tasks)
    expected_losses, expected_grads, expected_ends = descended(plain, *double(params, tasks))
    # A rounding before the first step grows by up to the descent's expansion, here a factor of ten.
    assert_close(losses, expected_losses, 10 * TOLERANCE)
    for name in params:
        assert_close(grads[name], expected_grads[name], 10 * TOLERANCE)
        assert_close(ends[name], expected_ends[name], 10 * TOLERANCE)
