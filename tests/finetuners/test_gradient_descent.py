"""SGD and Adam against torch.optim, and the symmetries that a coordinate-wise rule has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lft.finetuners.base import FineTuner
from lft.finetuners.gradient_descent import SGD, Adam
from lft.seeding import generator
from lft.types import Params

Optimizer = Callable[[list[Tensor]], torch.optim.Optimizer]
RULES: dict[str, tuple[FineTuner, Optimizer]] = {
    "sgd": (SGD(0.3), lambda leaves: torch.optim.SGD(leaves, lr=0.3)),
    "adam": (Adam(0.3), lambda leaves: torch.optim.Adam(leaves, lr=0.3)),
    "adam, other betas": (
        Adam(0.3, (0.5, 0.9), 1e-3),
        lambda leaves: torch.optim.Adam(leaves, lr=0.3, betas=(0.5, 0.9), eps=1e-3),
    ),
}


def final(tuner: FineTuner, params: Params, grads: list[Params]) -> Params:
    state = tuner.start(params)
    for grad in grads:
        state, params = tuner.step(state, params, grad)
    return params


def gradients(steps: int, n_tasks: int, n: int, dtype: torch.dtype) -> list[Params]:
    """Of many magnitudes, some exactly zero."""
    random = generator("gradients", steps, n_tasks, n)
    drawn = torch.randn(steps, n_tasks, n, generator=random, dtype=torch.float64)
    scale = 10 ** (2 * torch.randn(steps, n_tasks, n, generator=random, dtype=torch.float64) - 2)
    alive = torch.rand(steps, n_tasks, n, generator=random, dtype=torch.float64) > 0.1
    return [{"theta": leaf.to(dtype)} for leaf in drawn * scale * alive]


@given(
    rule=st.sampled_from(sorted(RULES)),
    steps=st.integers(1, 12),
    n_tasks=st.integers(1, 3),
    n=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_matches_torch_optim(
    rule: str, steps: int, n_tasks: int, n: int, dtype: torch.dtype
) -> None:
    tuner, optimizer = RULES[rule]
    grads = gradients(steps, n_tasks, n, dtype)
    leaf = torch.zeros(n_tasks, n, dtype=dtype, requires_grad=True)
    reference = optimizer([leaf])
    for grad in grads:
        leaf.grad = grad["theta"]
        reference.step()
    result = final(tuner, {"theta": torch.zeros(n_tasks, n, dtype=dtype)}, grads)["theta"]
    assert result.dtype == dtype
    # A dozen roundings of numbers of size one.
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(result, leaf.detach(), rtol=tolerance, atol=tolerance)


@given(
    rule=st.sampled_from(sorted(RULES)),
    steps=st.integers(1, 6),
    n_tasks=st.integers(1, 3),
    n=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_permuting_coordinates_permutes_updates(
    rule: str, steps: int, n_tasks: int, n: int, dtype: torch.dtype
) -> None:
    tuner, _ = RULES[rule]
    grads = gradients(steps, n_tasks, n, dtype)
    order = torch.randperm(n, generator=generator("order"))
    start = {"theta": torch.zeros(n_tasks, n, dtype=dtype)}
    plain = final(tuner, start, grads)["theta"]
    permuted = final(tuner, start, [{"theta": g["theta"][:, order]} for g in grads])["theta"]
    # Elementwise arithmetic, whose vectorised and scalar code may round differently.
    tolerance = 1e-14 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(permuted, plain[:, order], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_scaling_the_gradient(factor: float) -> None:
    """SGD's update scales along; Adam's only sees eps change in proportion."""
    grads = gradients(5, 2, 7, torch.float64)
    scaled = [{"theta": factor * g["theta"]} for g in grads]
    start = {"theta": torch.zeros(2, 7, dtype=torch.float64)}
    # Powers of two scale without rounding; the last division and root may round differently.
    torch.testing.assert_close(
        final(SGD(0.3), start, scaled)["theta"],
        factor * final(SGD(0.3), start, grads)["theta"],
        rtol=1e-13,
        atol=0.0,
    )
    torch.testing.assert_close(
        final(Adam(0.3, eps=1e-6 * factor), start, scaled)["theta"],
        final(Adam(0.3, eps=1e-6), start, grads)["theta"],
        rtol=1e-13,
        atol=0.0,
    )


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_step_leaves_its_arguments_unchanged(rule: str) -> None:
    tuner, _ = RULES[rule]
    (grads,) = gradients(1, 2, 3, torch.float64)
    params = {"theta": torch.ones(2, 3, dtype=torch.float64)}
    state = tuner.start(params)
    once = tuner.step(state, params, grads)[1]
    again = tuner.step(state, params, grads)[1]
    assert torch.equal(once["theta"], again["theta"])
    assert torch.equal(params["theta"], torch.ones(2, 3, dtype=torch.float64))


def test_sgd_is_differentiable_in_parameters_and_gradient() -> None:
    theta = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    gradient = torch.tensor([[3.0, 5.0]], dtype=torch.float64, requires_grad=True)
    _, updated = SGD(0.2).step(None, {"theta": theta}, {"theta": gradient})
    by_hand = torch.autograd.grad(updated["theta"].sum(), [theta, gradient])
    assert by_hand[0].tolist() == [[1, 1]]
    assert by_hand[1].tolist() == [[-0.2, -0.2]]
