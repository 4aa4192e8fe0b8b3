"""The native MLP against the plain one in float64, which is tested against torch.nn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Generator, Tensor

from lft.kernels import mlp
from lft.meta.gradients import value_and_grad
from lft.tasks.networks import MLP
from lft.types import Batch, Params, TaskBatch
from tests.descent import (
    STEP_SIZE,
    STEPS,
    TOLERANCE,
    assert_close,
    check_descent,
    descended,
    double,
    far_from_kinks,
    natively,
)

pytestmark = pytest.mark.usefixtures("compiler")

LOSSES = st.sampled_from(["squared error", "cross-entropy"])


class Loss:
    """As much of a task family as gradients need."""

    def __init__(self, network: MLP) -> None:
        self.network = network

    def loss(self, params: Params, batch: Batch) -> Tensor:
        if batch.y.is_floating_point():
            return self.network.squared_error(params, batch.x, batch.y)
        return self.network.cross_entropy(params, batch.x, batch.y)


class Case:
    """Random parameters, support and query; ``fused`` in float32, ``plain`` in float64."""

    def __init__(
        self, widths: tuple[int, ...], loss: str = "squared error", n_tasks: int = 2, n: int = 4
    ) -> None:
        generator = Generator().manual_seed(n_tasks)
        self.fused, self.plain = Loss(MLP(widths)), Loss(MLP(widths, "torch"))
        self.params = {
            name: leaf + 0.1 * torch.randn(leaf.shape, generator=generator)
            for name, leaf in self.fused.network.init(n_tasks, generator).items()
        }

        def examples(n: int) -> Batch:
            x = torch.randn(n_tasks, n, widths[0], generator=generator)
            if loss == "squared error":
                return Batch(x, torch.randn(n_tasks, n, widths[-1], generator=generator))
            return Batch(x, torch.randint(widths[-1], (n_tasks, n), generator=generator))

        self.tasks = TaskBatch(examples(n), examples(n + 1))

    def double(self) -> tuple[Params, TaskBatch]:
        return double(self.params, self.tasks)


def check(case: Case) -> None:
    losses, grads = value_and_grad(case.fused, case.params, case.tasks.support)
    params, tasks = case.double()
    expected_losses, expected_grads = value_and_grad(case.plain, params, tasks.support)
    assert_close(losses, expected_losses)
    for name, grad in grads.items():
        assert_close(grad, expected_grads[name])


def check_native_descent(case: Case) -> None:
    check_descent(case.fused, case.plain, case.params, case.tasks)


@given(
    widths=st.lists(st.integers(1, 70), min_size=2, max_size=5).map(tuple),
    n=st.integers(1, 25),
    loss=LOSSES,
)
def test_any_sizes(widths: tuple[int, ...], n: int, loss: str) -> None:
    case = Case(widths, loss, n=n)
    assume(far_from_kinks(case.plain, case.params, case.tasks))
    check(case)


@pytest.mark.parametrize("n", [1, 5, 13])
@pytest.mark.parametrize("loss", ["squared error", "cross-entropy"])
@pytest.mark.parametrize("widths", [(3, 2), (5, 7, 3), (1, 40, 40, 1), (2, 17, 33, 20, 6)])
def test_descent_is_differentiated(widths: tuple[int, ...], loss: str, n: int) -> None:
    check_native_descent(Case(widths, loss, n_tasks=3, n=n))


def test_the_sizes_of_the_profiles() -> None:
    for case in (Case((1, 40, 40, 1), n=10), Case((784, 20, 20, 10), "cross-entropy", n=10)):
        check(case)
        check_native_descent(case)


def test_no_step_is_the_gradient_on_the_query_set() -> None:
    case = Case((3, 5, 2))
    found = natively(case.fused, case.params, case.tasks, steps=0)
    losses, grads = value_and_grad(case.plain, case.params, case.tasks.query)
    assert_close(found[0], losses)
    assert all(torch.equal(found[2][name], leaf) for name, leaf in case.params.items())
    for name, grad in grads.items():
        assert_close(found[1][name], grad)


def test_gradients_weigh_the_losses() -> None:
    case, weights = Case((3, 5, 2)), torch.tensor([2.0, -3.0])
    leaves = {name: leaf.requires_grad_() for name, leaf in case.params.items()}
    loss = (weights * case.fused.loss(leaves, case.tasks.support)).sum()
    params, tasks = case.double()
    expected = value_and_grad(case.plain, params, tasks.support)[1]
    for name, grad in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
        assert_close(grad, expected[name] * weights.view(-1, 1, 1))


def test_second_derivatives_are_those_of_the_plain_path() -> None:
    case = Case((3, 6, 2), "cross-entropy")
    actual = descended(case.fused, case.params, case.tasks)
    expected = descended(case.plain, *case.double())
    for name in case.params:
        assert_close(actual[1][name], expected[1][name], 10 * TOLERANCE)


def test_parameters_may_come_in_any_order_and_need_not_be_contiguous() -> None:
    case = Case((3, 4, 2))
    case.params = {name: leaf[:1].expand(2, -1, -1) for name, leaf in sorted(case.params.items())}
    check(case)
    check_native_descent(case)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_task(broken: float) -> None:
    case = Case((3, 8, 20, 4))
    case.params["w0"][0, 1, 2] = broken
    losses, grads = value_and_grad(case.fused, case.params, case.tasks.support)
    assert losses.isfinite().tolist() == [False, True]
    assert not grads["w2"][0].isfinite().all()
    assert all(leaf[1].isfinite().all() for leaf in grads.values())
    losses, grads, _ = natively(case.fused, case.params, case.tasks)
    assert losses.isfinite().tolist() == [False, True]
    assert all(leaf[1].isfinite().all() for leaf in grads.values())


@pytest.mark.usefixtures("threads")
def test_results_do_not_depend_on_threads() -> None:
    case, results = Case((3, 16, 16, 2), n_tasks=5), []
    for n_threads in (1, 3):
        torch.set_num_threads(n_threads)
        losses, grads, ends = natively(case.fused, case.params, case.tasks)
        results.append([losses, *grads.values(), *ends.values()])
        results[-1] += value_and_grad(case.fused, case.params, case.tasks.support)[1].values()
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_only_float32_on_the_cpu_and_only_if_asked_for() -> None:
    case = Case((3, 4, 2))
    assert case.plain.network.descend(case.params, case.tasks, STEPS, STEP_SIZE) is None
    assert case.fused.network.descend(*case.double(), STEPS, STEP_SIZE) is None
    check_double = value_and_grad(case.fused, case.double()[0], case.double()[1].support)
    assert check_double[0].dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.full((2, 4), 2)}, r"labels must be in \[0, 2\)"),
        ({"y": torch.zeros(2, 3, dtype=torch.long)}, "labels must be"),
        ({"x": torch.zeros(2, 4, 5)}, "weight must be"),
        ({"x": torch.zeros(2, 0, 3)}, "inputs .* are needed"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    case = Case((3, 4, 2), "cross-entropy")
    batch = case.tasks.support._replace(**change)
    with pytest.raises(RuntimeError, match=message):
        mlp.loss(case.params, *batch, lambda leaves: torch.zeros(2))
    with pytest.raises(RuntimeError, match=message):
        mlp.descend(case.params, TaskBatch(batch, batch), STEPS, STEP_SIZE)
