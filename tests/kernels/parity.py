"""A native kernel in float32 against plain PyTorch in float64, which is tested against torch.nn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lft.kernels.build import Kernel
from lft.meta.gradients import value_and_grad
from lft.tasks.networks import CNN, MLP
from lft.types import Batch, Params, TaskBatch

STEPS, STEP_SIZE = 3, 0.1
# Of the size of a tensor: float32 sums over a task's examples and inputs, of at most 150 products
# in LeNet-5, and exp and tanh in the LSTM that are good to 3e-7.
TOLERANCE = 1e-5

Descent = tuple[Tensor, Params, Params]
"""f(θ⁽ᴷ⁾; query) of each task, its gradient in θ⁽⁰⁾, and θ⁽ᴷ⁾."""


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert actual.shape == expected.shape
    error, size = (actual - expected).norm(), expected.norm()
    assert error <= tolerance * size, f"relative error {error / size:.1e}"


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


class _NearestKink(TorchDispatchMode):
    """Notes how near to zero the inputs of ReLUs come."""

    distance = torch.inf

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.relu.default:
            self.distance = min(self.distance, float(args[0].abs().min()))
        return func(*args, **(kwargs or {}))


class Loss:
    """As much of a task family as gradients need."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def loss(self, params: Params, batch: Batch) -> Tensor:
        squared = batch.y.is_floating_point()
        loss = self.network.squared_error if squared else self.network.cross_entropy
        result: Tensor = loss(params, *batch)
        return result


class Case:
    """Random parameters, support and query; ``fused`` in float32, ``plain`` in float64."""

    def __init__(
        self,
        network: Callable[[Kernel], MLP | CNN],
        shape: tuple[int, ...],
        outputs: int,
        loss: str,
        n_tasks: int,
        n: int,
    ) -> None:
        generator = Generator().manual_seed(n_tasks)
        self.fused, self.plain = Loss(network("auto")), Loss(network("torch"))
        self.params = {
            name: leaf + 0.1 * torch.randn(leaf.shape, generator=generator)
            for name, leaf in network("auto").init(n_tasks, generator).items()
        }

        def examples(n: int) -> Batch:
            x = torch.randn(n_tasks, n, *shape, generator=generator)
            if loss == "squared error":
                return Batch(x, torch.randn(n_tasks, n, outputs, generator=generator))
            return Batch(x, torch.randint(outputs, (n_tasks, n), generator=generator))

        self.tasks = TaskBatch(examples(n), examples(n + 1))

    def double(self) -> tuple[Params, TaskBatch]:
        batches = (
            Batch(x.double(), y.double() if y.is_floating_point() else y) for x, y in self.tasks
        )
        return {name: leaf.double() for name, leaf in self.params.items()}, TaskBatch(*batches)

    def natively(self, steps: int = STEPS) -> Descent:
        found: Descent | None = self.fused.network.descend(
            self.params, self.tasks, steps, STEP_SIZE
        )
        assert found is not None
        return found

    def far_from_kinks(self) -> bool:
        """Whether rounding to float32 leaves every ReLU of the descent on its side of zero.

        Otherwise gradients may differ by a few per cent, on one processor and not on another.
        """
        with _NearestKink() as nearest:
            descended(self.plain, *self.double())
        return nearest.distance > TOLERANCE / 10

    def check(self) -> None:
        """Outputs, losses and gradients."""
        params, tasks = self.double()
        losses, grads = value_and_grad(self.fused, self.params, self.tasks.support)
        expected_losses, expected_grads = value_and_grad(self.plain, params, tasks.support)
        assert_close(losses, expected_losses)
        for name, grad in grads.items():
            assert_close(grad, expected_grads[name])
        with torch.no_grad():
            outputs = self.fused.network(self.params, self.tasks.support.x)
            assert_close(outputs, self.plain.network(params, tasks.support.x))

    def check_descent(self) -> None:
        losses, grads, ends = self.natively()
        expected_losses, expected_grads, expected_ends = descended(self.plain, *self.double())
        # A rounding before the first step grows by the descent's expansion, here up to tenfold.
        assert_close(losses, expected_losses, 10 * TOLERANCE)
        for name in self.params:
            assert_close(grads[name], expected_grads[name], 10 * TOLERANCE)
            assert_close(ends[name], expected_ends[name], 10 * TOLERANCE)


def mlp_case(
    widths: tuple[int, ...],
    loss: Literal["squared error", "cross-entropy"] = "squared error",
    n_tasks: int = 2,
    n: int = 4,
) -> Case:
    return Case(lambda kernel: MLP(widths, kernel), widths[:1], widths[-1], loss, n_tasks, n)


def cnn_case(
    shape: tuple[int, int, int],
    channels: tuple[int, ...],
    outputs: int = 3,
    n_tasks: int = 2,
    n: int = 4,
) -> Case:
    return Case(
        lambda kernel: CNN(shape, channels, outputs, kernel),
        shape,
        outputs,
        "cross-entropy",
        n_tasks,
        n,
    )
