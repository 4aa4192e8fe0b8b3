"""The native CNN against the plain one in float64, which is tested against torch.nn."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Generator, Tensor

from lft.kernels import cnn
from lft.meta.gradients import value_and_grad
from lft.tasks.networks import CNN
from lft.types import Batch, Params, TaskBatch
from tests.descent import (
    STEP_SIZE,
    STEPS,
    assert_close,
    check_descent,
    far_from_kinks,
    natively,
)

pytestmark = pytest.mark.usefixtures("compiler")


class Loss:
    """As much of a task family as gradients need."""

    primary = "accuracy"

    def __init__(self, network: CNN) -> None:
        self.network = network

    def loss(self, params: Params, batch: Batch) -> Tensor:
        return self.network.cross_entropy(params, batch.x, batch.y)


class Case:
    """Random parameters, images and labels; ``fused`` in float32, ``plain`` in float64."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: tuple[int, ...],
        outputs: int = 3,
        n_tasks: int = 2,
        n: int = 4,
    ) -> None:
        generator = Generator().manual_seed(n_tasks)
        self.fused = Loss(CNN(shape, channels, outputs))
        self.plain = Loss(CNN(shape, channels, outputs, "torch"))
        params = self.fused.network.init(n_tasks, generator)
        self.params = {
            name: leaf + 0.1 * torch.randn(leaf.shape, generator=generator)
            for name, leaf in params.items()
        }

        def examples(n: int) -> Batch:
            x = torch.randn(n_tasks, n, *shape, generator=generator)
            return Batch(x, torch.randint(outputs, (n_tasks, n), generator=generator))

        self.batch = examples(n)
        self.tasks = TaskBatch(self.batch, examples(n + 1))

    def double(self) -> tuple[Params, Batch]:
        params = {name: leaf.double() for name, leaf in self.params.items()}
        return params, Batch(self.batch.x.double(), self.batch.y)


def check(case: Case) -> None:
    losses, grads = value_and_grad(case.fused, case.params, case.batch)
    expected_losses, expected_grads = value_and_grad(case.plain, *case.double())
    assert_close(losses, expected_losses)
    for name, grad in grads.items():
        assert grad.shape == case.params[name].shape
        assert_close(grad, expected_grads[name])
    with torch.no_grad():
        outputs = case.fused.network(case.params, case.batch.x)
        params, batch = case.double()
        assert_close(outputs, case.plain.network(params, batch.x))


@given(
    channels=st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
    inputs=st.integers(1, 5),
    height=st.integers(1, 35),
    width=st.integers(1, 35),
)
def test_any_sizes(channels: tuple[int, ...], inputs: int, height: int, width: int) -> None:
    case = Case((inputs, height, width), channels)
    assume(far_from_kinks(case.plain, case.params, case.tasks))
    check(case)


@pytest.mark.parametrize("width", [8, 16, 32])
def test_the_sizes_of_the_profiles(width: int) -> None:
    check(Case((3, 32, 32), (width,) * 4, outputs=10, n_tasks=3, n=10))


@given(
    channels=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    inputs=st.integers(1, 5),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    n=st.integers(1, 5),
)
def test_descent_of_any_size_is_differentiated(
    channels: tuple[int, ...], inputs: int, height: int, width: int, n: int
) -> None:
    case = Case((inputs, height, width), channels, n=n)
    assume(far_from_kinks(case.plain, case.params, case.tasks))
    check_descent(case.fused, case.plain, case.params, case.tasks)


def test_descent_at_the_sizes_of_the_profiles() -> None:
    case = Case((3, 32, 32), (8,) * 4, outputs=10, n_tasks=3, n=10)
    check_descent(case.fused, case.plain, case.params, case.tasks)


def test_no_step_is_the_gradient_on_the_query_set() -> None:
    case = Case((2, 6, 5), (3, 4))
    losses, grads, ends = natively(case.fused, case.params, case.tasks, steps=0)
    expected_losses, expected = value_and_grad(case.fused, case.params, case.tasks.query)
    assert torch.equal(losses, expected_losses)
    assert all(torch.equal(leaf, expected[name]) for name, leaf in grads.items())
    assert all(torch.equal(leaf, case.params[name]) for name, leaf in ends.items())


def test_gradients_weigh_the_losses() -> None:
    case = Case((2, 6, 5), (3, 4))
    weights = torch.tensor([2.0, -3.0])
    leaves = {name: leaf.requires_grad_() for name, leaf in case.params.items()}
    loss = (weights * case.fused.loss(leaves, case.batch)).sum()
    grads = torch.autograd.grad(loss, list(leaves.values()))
    params, batch = case.double()
    for grad, expected in zip(
        grads, value_and_grad(case.plain, params, batch)[1].values(), strict=True
    ):
        assert_close(grad, expected * weights.view(-1, *[1] * (expected.dim() - 1)))


def test_second_derivatives_are_those_of_the_plain_path() -> None:
    case = Case((2, 6, 5), (3, 4))

    def curvature(family: Loss, params: Params, batch: Batch) -> tuple[Tensor, ...]:
        """∇ ‖∇f‖²."""
        leaves = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
        _, grads = value_and_grad(family, leaves, batch, create_graph=True)
        norm = sum((g.square().sum() for g in grads.values()), torch.zeros(()))
        return torch.autograd.grad(norm, list(leaves.values()))

    actual = curvature(case.fused, case.params, case.batch)
    for one, other in zip(actual, curvature(case.plain, *case.double()), strict=True):
        assert_close(one, other)


def test_parameters_need_not_be_contiguous() -> None:
    case = Case((1, 9, 9), (4, 4))
    one = {name: leaf[:1] for name, leaf in case.params.items()}
    case.params = {name: leaf.expand(2, *leaf.shape[1:]) for name, leaf in one.items()}
    case.batch = Batch(case.batch.x.transpose(3, 4), case.batch.y)
    check(case)


def test_parameters_may_come_in_any_order() -> None:
    """Those of a file are in alphabetical order."""
    case = Case((1, 9, 9), (4, 4))
    case.params = dict(sorted(case.params.items()))
    check(case)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_task(broken: float) -> None:
    case = Case((1, 8, 8), (4, 4))
    case.params["conv0"][0, 2, 0, 1, 1] = broken
    losses, grads = value_and_grad(case.fused, case.params, case.batch)
    expected, _ = value_and_grad(case.plain, *case.double())
    assert losses.isfinite().tolist() == expected.isfinite().tolist() == [False, True]
    assert not grads["head"][0].isfinite().all()
    assert all(leaf[1].isfinite().all() for leaf in grads.values())
    losses, grads, _ = natively(case.fused, case.params, case.tasks)
    assert losses.isfinite().tolist() == [False, True]
    assert all(leaf[1].isfinite().all() for leaf in grads.values())


@pytest.mark.usefixtures("threads")
def test_results_do_not_depend_on_threads() -> None:
    case = Case((3, 16, 16), (8, 8), n_tasks=5)
    results = []
    for n_threads in (1, 3):
        torch.set_num_threads(n_threads)
        losses, grads = value_and_grad(case.fused, case.params, case.batch)
        found, meta, ends = natively(case.fused, case.params, case.tasks)
        results.append([losses, *grads.values(), found, *meta.values(), *ends.values()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_results_do_not_depend_on_where_tensors_lie() -> None:
    case = Case((3, 16, 16), (8, 8), outputs=10)
    expected = value_and_grad(case.fused, case.params, case.batch)
    kept = []  # so that every copy lies elsewhere
    for size in range(1, 2000, 50):
        kept.append(torch.empty(size))
        copy = {name: leaf.clone() for name, leaf in case.params.items()}
        losses, grads = value_and_grad(case.fused, copy, case.batch)
        assert torch.equal(losses, expected[0])
        assert all(torch.equal(leaf, expected[1][name]) for name, leaf in grads.items())


def test_arguments_that_do_not_fit_are_refused() -> None:
    case = Case((1, 8, 8), (4, 4))
    plain = case.plain.loss
    x, y = case.batch
    with pytest.raises(RuntimeError, match="labels must be in"):
        cnn.cross_entropy(case.params, x, y + 3, plain)
    with pytest.raises(RuntimeError, match="labels must be in"):
        cnn.descend(case.params, TaskBatch(case.batch, Batch(x, y - 1)), STEPS, STEP_SIZE)
    with pytest.raises(RuntimeError, match="labels must be contiguous"):
        cnn.cross_entropy(case.params, x, y[:, 1:], plain)
    with pytest.raises(RuntimeError, match="images must be"):
        cnn.logits(case.params, x.double())
    with pytest.raises(RuntimeError, match="head must be"):
        cnn.logits(case.params, x[..., :4])
    with pytest.raises(RuntimeError, match="are needed"):
        cnn.logits(case.params, x[0])
    case.params["bias1"] = torch.zeros(2, 5)
    with pytest.raises(RuntimeError, match="bias must be"):
        cnn.logits(case.params, x)
