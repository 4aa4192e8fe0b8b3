"""First-order gradients and the zeroth-order estimator of eq. 6."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from closed_forms import Elementwise, LeastSquares
from scipy import stats
from torch import Tensor

from lft.config import ZerothOrderSettings
from lft.meta.gradients import FirstOrder, ZerothOrder, value_and_grad
from lft.seeding import generator
from lft.types import Batch

pytestmark = pytest.mark.usefixtures("float64")

FALSE_ALARMS = 1e-6
"""Chance that a right estimator fails one statistical test (the seeds are fixed all the same)."""


def estimates(
    function: object, theta: Tensor, n: int, mu: float, directions: int, seed: str
) -> Tensor:
    """n independent estimates at the same θ, (n, d), for f(θ) = Σ_d function(θ_d)."""
    settings = ZerothOrderSettings(mu=mu, directions=directions)
    batch = Batch(torch.zeros(n, 1, 1), torch.ones(n, 1))
    params = {"theta": theta.expand(n, -1)}
    return ZerothOrder(settings, generator(seed))(Elementwise(function), params, batch)["theta"]


def assert_mean(samples: Tensor, expected: Tensor) -> None:
    """Two-sided z-test of each coordinate's mean, Bonferroni-corrected to FALSE_ALARMS."""
    error = samples.std(0) / math.sqrt(len(samples))
    limit = stats.norm.isf(FALSE_ALARMS / 2 / len(expected))
    assert ((samples.mean(0) - expected).abs() < limit * error).all()


def test_first_order_gradient_of_least_squares() -> None:
    family = LeastSquares(support=5)
    batch = family.sample(3, generator("tasks")).support
    params = family.init(3, generator("start"))
    losses, grads = value_and_grad(family, params, batch)
    x, y, theta = batch.x.numpy(), batch.y.numpy(), family.vector(params).numpy()
    residual = np.einsum("bnd,bd->bn", x, theta) - y
    # float64 against the closed form: only the order of a few sums differs.
    np.testing.assert_allclose(losses, (residual**2).mean(1) / 2, rtol=1e-12)
    np.testing.assert_allclose(
        family.vector(grads), np.einsum("bnd,bn->bd", x, residual) / 5, rtol=1e-12
    )
    assert not losses.requires_grad
    assert not any(leaf.requires_grad for leaf in grads.values())


@pytest.mark.parametrize("recorded", [True, False])
def test_graph_is_kept_only_if_asked_for(recorded: bool) -> None:
    family = LeastSquares()
    batch = family.sample(2, generator("tasks")).support
    params = {k: v.requires_grad_() for k, v in family.init(2, generator("start")).items()}
    for gradient in (
        FirstOrder(create_graph=recorded),
        ZerothOrder(ZerothOrderSettings(), generator("u"), create_graph=recorded),
    ):
        grads = gradient(family, params, batch)
        assert all(leaf.requires_grad is recorded for leaf in grads.values())


def test_recorded_first_order_gradient_brings_the_hessian() -> None:
    family = LeastSquares()
    batch = family.sample(1, generator("tasks")).support
    theta = family.vector(family.init(1, generator("start")))

    def gradient(vector: Tensor) -> Tensor:
        grads = FirstOrder(create_graph=True)(family, family.params(vector[None]), batch)
        return family.vector(grads)[0]

    hessian = torch.autograd.functional.jacobian(gradient, theta[0])
    x = batch.x[0]
    # float64 against XᵀX / n.
    torch.testing.assert_close(hessian, x.T @ x / len(x), rtol=1e-12, atol=1e-12)


def test_zeroth_order_matches_the_formula_direction_by_direction() -> None:
    family, mu, q = LeastSquares(), 0.1, 5
    batch = family.sample(2, generator("tasks")).support
    params = family.init(2, generator("start"))
    settings = ZerothOrderSettings(mu=mu, directions=q)
    estimate = ZerothOrder(settings, generator("u"))(family, params, batch)
    sizes = [leaf[0].numel() for leaf in params.values()]
    drawn = torch.randn(2, q, sum(sizes), generator=generator("u"))  # the documented draw
    u = {
        name: part.reshape(2, q, *params[name].shape[1:])
        for name, part in zip(params, drawn.split(sizes, dim=2), strict=True)
    }
    expected = {name: torch.zeros_like(leaf) for name, leaf in params.items()}
    for j in range(q):
        moved = {name: leaf + mu * u[name][:, j] for name, leaf in params.items()}
        slope = (family.loss(moved, batch) - family.loss(params, batch)) / (mu * q)
        for task in range(2):
            for name in params:
                expected[name][task] += slope[task] * u[name][task, j]
    for name in params:
        # The difference of two losses loses log10(1/mu) of float64's 16 digits.
        torch.testing.assert_close(estimate[name], expected[name], rtol=1e-11, atol=1e-11)


def test_zeroth_order_is_unbiased_for_the_smoothed_loss() -> None:
    """∇ E_u f(θ + μu) for f = log(1 + eᶿ), by Gauss-Hermite quadrature, at a large μ."""
    theta, mu = torch.tensor([-1.0, 0.5, 2.0]), 1.5
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    sigmoid = 1 / (1 + np.exp(-(theta.numpy()[:, None] + mu * nodes)))
    smoothed = torch.from_numpy(sigmoid @ weights / weights.sum())
    samples = estimates(torch.nn.functional.softplus, theta, 200_000, mu, 2, "unbiased")
    assert_mean(samples, smoothed)
    # The test has power: the gradient of the loss itself would be refused.
    with pytest.raises(AssertionError):
        assert_mean(samples, theta.sigmoid())


def test_smoothing_bias_on_a_cubic() -> None:
    """E ĝ of f = Σ θ³ is 3θ² + 3μ²: the bias is 3μ² in every coordinate."""
    theta, mu = torch.tensor([-0.5, 0.0, 1.0]), 0.7
    samples = estimates(lambda t: t**3, theta, 400_000, mu, 1, "cubic")
    assert_mean(samples, 3 * theta**2 + 3 * mu**2)
    with pytest.raises(AssertionError):
        assert_mean(samples, 3 * theta**2)


@pytest.mark.parametrize("directions", [1, 4, 32])
def test_variance_falls_as_one_over_q(directions: int) -> None:
    """For a linear loss Var ĝ_d = (‖g‖² + g_d²) / q exactly; here g = (1, 1, 1)."""
    n = 100_000
    samples = estimates(lambda t: t, torch.zeros(3), n, 1e-3, directions, "variance")
    centred = samples - samples.mean(0)
    variance = centred.square().mean(0)
    error = ((centred**4).mean(0) - variance**2).sqrt() / math.sqrt(n)  # of a sample variance
    limit = stats.norm.isf(FALSE_ALARMS / 2 / 3)
    assert ((variance - 4 / directions).abs() < limit * error).all()
    assert (limit * error < 0.15 * variance).all()  # tight enough to tell 1/q from other laws


@pytest.mark.parametrize("shared", [True, False])
def test_tasks_share_directions_only_if_asked(shared: bool) -> None:
    settings = ZerothOrderSettings(directions=3, shared_directions=shared)
    params = {"theta": torch.ones(2, 4)}
    batch = Batch(torch.zeros(2, 1, 1), torch.ones(2, 1))
    gradient = ZerothOrder(settings, generator("u"))
    family = Elementwise(torch.exp)
    first = gradient(family, params, batch)["theta"]
    second = gradient(family, params, batch)["theta"]
    assert torch.equal(first[0], first[1]) is shared
    assert not torch.equal(first, second)  # fresh directions at every call
