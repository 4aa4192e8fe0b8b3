"""Few-shot CNNs, their gradients and MAML's, and attacks on LeNet-5, against the usual ways.

Every competitor computes the losses of all tasks and their gradients from the same weights and
images; the results are compared before anything is timed. All run on one core.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Generator, Tensor
from torch.func import grad, grad_and_value, vmap
from torch.nn import functional

from lft.meta.gradients import value_and_grad
from lft.tasks.networks import CNN, cross_entropy
from lft.tasks.victim import LeNet5
from lft.types import Batch, Params, TaskBatch

TASKS, SHAPE, CLASSES = 5, (3, 32, 32), 10
STEPS, STEP_SIZE = 5, 0.1
Result = tuple[Tensor, list[Tensor]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Problem:
    """Few-shot tasks: parameters (B, …), images (B, n, 3, 32, 32) and labels (B, n)."""

    def __init__(self, n: int, width: int) -> None:
        generator = Generator().manual_seed(n + width)
        self.widths = (width,) * 4
        self.params = CNN(SHAPE, self.widths, CLASSES).init(TASKS, generator)
        self.batch, self.query = (
            Batch(
                torch.rand(TASKS, n, *SHAPE, generator=generator),
                torch.randint(CLASSES, (TASKS, n), generator=generator),
            )
            for _ in range(2)
        )


class Objective:
    """The mean cross-entropy of a network."""

    def __init__(self, network: CNN) -> None:
        self.network = network

    def loss(self, params: Params, batch: Batch) -> Tensor:
        return self.network.cross_entropy(params, batch.x, batch.y)


def native_kernel(case: Problem) -> Result:
    """The native kernel of this package."""
    losses, grads = value_and_grad(
        Objective(CNN(SHAPE, case.widths, CLASSES)), case.params, case.batch
    )
    return losses, list(grads.values())


def grouped(case: Problem) -> Result:
    """Tasks as groups of channels of one convolution."""
    network = CNN(SHAPE, case.widths, CLASSES, "torch")
    losses, grads = value_and_grad(Objective(network), case.params, case.batch)
    return losses, list(grads.values())


def _one_task(params: Params, x: Tensor, y: Tensor) -> Tensor:
    for layer in range(4):
        x = functional.conv2d(
            x, params[f"conv{layer}"], params[f"bias{layer}"], stride=2, padding=1
        ).relu()
    logits = x.flatten(1) @ params["head"] + params["head_bias"]
    return functional.cross_entropy(logits, y)


def loop(case: Problem) -> Result:
    """One task after the other."""
    results = []
    for task in range(TASKS):
        leaves = {k: v[task].detach().requires_grad_() for k, v in case.params.items()}
        loss = _one_task(leaves, case.batch.x[task], case.batch.y[task])
        results.append((loss.detach(), torch.autograd.grad(loss, list(leaves.values()))))
    losses = torch.stack([loss for loss, _ in results])
    return losses, [torch.stack(leaf) for leaf in zip(*(g for _, g in results), strict=True)]


def vmapped(case: Problem) -> Result:
    """``torch.func``: vmap of the gradient."""
    grads, losses = vmap(grad_and_value(_one_task))(case.params, *case.batch)
    return losses, [grads[name] for name in case.params]


def unfolded(case: Problem) -> Result:
    """``unfold`` and one batched matrix product a layer."""
    leaves = {k: v.detach().requires_grad_() for k, v in case.params.items()}
    losses = _unfolded(leaves, *case.batch)
    return losses.detach(), list(torch.autograd.grad(losses.sum(), list(leaves.values())))


def _unfolded(leaves: Params, x: Tensor, y: Tensor) -> Tensor:
    n = x.shape[1]
    for layer in range(4):
        size = (x.shape[3] + 1) // 2
        columns = functional.unfold(x.flatten(0, 1), 3, padding=1, stride=2)
        columns = columns.view(TASKS, n, *columns.shape[1:]).transpose(1, 2).flatten(2)
        weight, bias = leaves[f"conv{layer}"].flatten(2), leaves[f"bias{layer}"][..., None]
        out = torch.baddbmm(bias, weight, columns).relu()
        x = out.view(TASKS, -1, n, size, size).transpose(1, 2)
    logits = torch.baddbmm(leaves["head_bias"], x.flatten(2), leaves["head"])
    return cross_entropy(logits, y)


@functools.lru_cache(maxsize=1)
def problem(n: int, width: int) -> Problem:
    return Problem(n, width)


@pytest.mark.parametrize("competitor", [native_kernel, grouped, loop, vmapped, unfolded])
@pytest.mark.parametrize("n", [10, 30])
@pytest.mark.parametrize("width", [8, 16, 32])
def test_few_shot_step(
    benchmark: BenchmarkFixture, width: int, n: int, competitor: Callable[[Problem], Result]
) -> None:
    case = problem(n, width)
    _check_agreement(competitor(case), grouped(case))
    benchmark.group = f"CNN, {TASKS} tasks of {n} images, {width} channels"
    benchmark.pedantic(competitor, args=(case,), rounds=30, warmup_rounds=2)


def native_descent(case: Problem) -> Result:
    """The native kernel of this package."""
    network, tasks = CNN(SHAPE, case.widths, CLASSES), TaskBatch(case.batch, case.query)
    found = network.descend(case.params, tasks, STEPS, STEP_SIZE)
    assert found is not None
    return found[0], list(found[1].values())


def grouped_descent(case: Problem) -> Result:
    """Tasks as groups of channels of one convolution, and autograd."""
    network = CNN(SHAPE, case.widths, CLASSES, "torch")
    return _descended(lambda leaves, x, y: network.cross_entropy(leaves, x, y), case)


def unfolded_descent(case: Problem) -> Result:
    """``unfold`` and batched matrix products, and autograd."""
    return _descended(_unfolded, case)


def loop_descent(case: Problem) -> Result:
    """One task after the other, and autograd."""

    def losses(leaves: Params, x: Tensor, y: Tensor) -> Tensor:
        tasks = ({name: leaf[task] for name, leaf in leaves.items()} for task in range(TASKS))
        return torch.stack([_one_task(*task) for task in zip(tasks, x, y, strict=True)])

    return _descended(losses, case)


def vmapped_descent(case: Problem) -> Result:
    """``torch.func``: vmap over tasks of the gradient through gradients."""

    def adapted_loss(params: Params, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Any:
        for _ in range(STEPS):
            grads = grad(_one_task)(params, x, y)
            params = {name: leaf - STEP_SIZE * grads[name] for name, leaf in params.items()}
        return _one_task(params, query_x, query_y)

    grads, losses = vmap(grad_and_value(adapted_loss))(case.params, *case.batch, *case.query)
    return losses, [grads[name] for name in case.params]


def _descended(losses: Callable[[Params, Tensor, Tensor], Tensor], case: Problem) -> Result:
    """The query losses after gradient descent, and their gradients before it."""
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in case.params.items()}
    params = leaves
    for _ in range(STEPS):
        total = losses(params, *case.batch).sum()
        grads = torch.autograd.grad(total, list(params.values()), create_graph=True)
        params = {
            name: leaf - STEP_SIZE * g
            for (name, leaf), g in zip(params.items(), grads, strict=True)
        }
    query = losses(params, *case.query)
    return query.detach(), list(torch.autograd.grad(query.sum(), list(leaves.values())))


@pytest.mark.parametrize(
    "competitor",
    [native_descent, grouped_descent, loop_descent, vmapped_descent, unfolded_descent],
)
@pytest.mark.parametrize("width", [8, 16, 32])
def test_second_order_descent(
    benchmark: BenchmarkFixture, width: int, competitor: Callable[[Problem], Result]
) -> None:
    case = problem(10, width)
    # A ReLU whose input rounds to the other side of zero changes the gradient by a few per cent.
    _check_agreement(competitor(case), grouped_descent(case), of_gradients=0.1)
    benchmark.group = f"MAML, {TASKS} CNNs of {width} channels, {STEPS} steps, second order"
    benchmark.pedantic(competitor, args=(case,), rounds=15, warmup_rounds=2)


def _check_agreement(result: Result, expected: Result, of_gradients: float = 1e-4) -> None:
    # float32 sums over the pixels of up to 30 images
    torch.testing.assert_close(result[0], expected[0], rtol=1e-4, atol=1e-5)
    for one, other in zip(result[1], expected[1], strict=True):
        assert (one - other).norm() <= of_gradients * other.norm()


def native_victim(network: LeNet5, images: Tensor) -> Tensor:
    """Logits with the native convolutions."""
    network.kernel = "auto"
    return network(images)


def blocks_victim(network: LeNet5, images: Tensor) -> Tensor:
    """Logits with convolutions of 2x2 blocks of pixels."""
    network.kernel = "torch"
    return network(images)


def textbook_victim(network: LeNet5, images: Tensor) -> Tensor:
    """Logits with convolutions, then pooling."""
    for layer in (network.conv1, network.conv2):
        images = functional.max_pool2d(layer(images).relu(), 2)
    hidden = network.fc2(network.fc1(images.flatten(1)).relu()).relu()
    return network.fc3(hidden)


def image_gradient(
    victim: Callable[[LeNet5, Tensor], Tensor], network: LeNet5, images: Tensor
) -> tuple[Tensor, Tensor]:
    leaf = images.clone().requires_grad_()
    logits = victim(network, leaf)
    return logits.detach(), torch.autograd.grad(logits[:, 0].sum(), leaf)[0]


@pytest.mark.parametrize("victim", [native_victim, blocks_victim, textbook_victim])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_victim(
    benchmark: BenchmarkFixture,
    shape: tuple[int, int, int],
    victim: Callable[[LeNet5, Tensor], Tensor],
) -> None:
    network = LeNet5(shape, CLASSES)
    network.initialise(0)
    network.requires_grad_(False)
    images = torch.rand(40, *shape, generator=Generator().manual_seed(0))
    for one, other in zip(
        image_gradient(victim, network, images),
        image_gradient(textbook_victim, network, images),
        strict=True,
    ):
        assert (one - other).norm() <= 1e-4 * other.norm()
    benchmark.group = f"LeNet-5 and its gradient, 40 images of {shape}"
    benchmark.pedantic(image_gradient, args=(victim, network, images), rounds=50, warmup_rounds=2)
