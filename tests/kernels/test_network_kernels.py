"""What the native MLP and CNN have in common."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lft.meta.gradients import value_and_grad
from lft.types import Batch, TaskBatch
from tests.kernels.parity import (
    STEP_SIZE,
    STEPS,
    TOLERANCE,
    Case,
    assert_close,
    cnn_case,
    descended,
    mlp_case,
)

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture(params=["mlp", "cnn"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "mlp":
        return mlp_case((3, 8, 20, 4), n_tasks=3)
    return cnn_case((2, 9, 8), (3, 17), n_tasks=3)


def test_no_step_is_the_gradient_on_the_query_set(case: Case) -> None:
    losses, grads, ends = case.natively(steps=0)
    expected_losses, expected = value_and_grad(case.fused, case.params, case.tasks.query)
    assert torch.equal(losses, expected_losses)
    assert all(torch.equal(leaf, expected[name]) for name, leaf in grads.items())
    assert all(torch.equal(leaf, case.params[name]) for name, leaf in ends.items())


def test_gradients_weigh_the_losses(case: Case) -> None:
    weights = torch.tensor([2.0, -3.0, 0.5])
    leaves = {name: leaf.requires_grad_() for name, leaf in case.params.items()}
    loss = (weights * case.fused.loss(leaves, case.tasks.support)).sum()
    grads = torch.autograd.grad(loss, list(leaves.values()))
    params, tasks = case.double()
    expected = value_and_grad(case.plain, params, tasks.support)[1]
    for name, grad in zip(leaves, grads, strict=True):
        assert_close(grad, expected[name] * weights.view(-1, *[1] * (grad.dim() - 1)))


def test_second_derivatives_are_those_of_the_plain_path(case: Case) -> None:
    """Where autograd keeps the graph of the kernel's gradients."""
    actual = descended(case.fused, case.params, case.tasks)
    expected = descended(case.plain, *case.double())
    for name in case.params:
        assert_close(actual[1][name], expected[1][name], 10 * TOLERANCE)


def strided(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1).contiguous().transpose(0, 1)


def test_parameters_may_come_in_any_order_and_tensors_need_not_be_contiguous(case: Case) -> None:
    """Parameters of a file are in alphabetical order."""
    case.params = {
        name: leaf[:1].expand(len(leaf), *leaf.shape[1:])
        for name, leaf in sorted(case.params.items())
    }
    case.tasks = TaskBatch(*(Batch(strided(x), strided(y)) for x, y in case.tasks))
    case.check()
    case.check_descent()


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_task(case: Case, broken: float) -> None:
    next(iter(case.params.values()))[0].view(-1)[4] = broken
    params, tasks = case.double()
    expected, _ = value_and_grad(case.plain, params, tasks.support)
    losses, grads = value_and_grad(case.fused, case.params, case.tasks.support)
    assert losses.isfinite().tolist() == expected.isfinite().tolist() == [False, True, True]
    *_, last_weight, _ = grads.values()
    assert not last_weight[0].isfinite().all()
    assert all(leaf[1:].isfinite().all() for leaf in grads.values())
    losses, grads, _ = case.natively()
    assert losses.isfinite().tolist() == [False, True, True]
    assert all(leaf[1:].isfinite().all() for leaf in grads.values())


def results(case: Case) -> list[Tensor]:
    losses, grads = value_and_grad(case.fused, case.params, case.tasks.support)
    found, meta, ends = case.natively()
    return [losses, *grads.values(), found, *meta.values(), *ends.values()]


@pytest.mark.usefixtures("threads")
def test_results_do_not_depend_on_threads_or_on_where_tensors_lie(case: Case) -> None:
    torch.set_num_threads(1)
    expected = results(case)
    torch.set_num_threads(3)
    kept = []  # so that every copy lies elsewhere
    for size in range(1, 1000, 50):
        kept.append(torch.empty(size))
        case.params = {name: leaf.clone() for name, leaf in case.params.items()}
        assert all(map(torch.equal, results(case), expected))


def test_only_float32_on_the_cpu_and_only_if_asked_for(case: Case) -> None:
    assert case.plain.network.descend(case.params, case.tasks, STEPS, STEP_SIZE) is None
    params, tasks = case.double()
    assert case.fused.network.descend(params, tasks, STEPS, STEP_SIZE) is None
    assert value_and_grad(case.fused, params, tasks.support)[0].dtype == torch.float64
