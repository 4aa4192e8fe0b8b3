"""σ and G of Theorem 1 against closed forms and the full Jacobian."""

from __future__ import annotations

import pytest
import torch
from closed_forms import Elementwise, LeastSquares
from theory_cases import (
    N_DRAWS,
    N_TASKS,
    deaf,
    learner,
    of_task,
    phi,
    settings,
    sine,
    vector,
)
from torch import Tensor

from lft.meta.learner import Learner
from lft.seeding import generator
from lft.theory.bound import jacobian_norms, rate
from lft.theory.design import sample_draws
from lft.theory.sigma import deviation, deviations
from lft.theory.trajectory import Trajectory, trajectory
from lft.types import Batch, Params, unflatten

pytestmark = pytest.mark.usefixtures("float64")


def test_deviation_where_gradients_are_known() -> None:
    """f = Σ_d θ_d · y: the gradient of an example is y (1, 1), its variance 2 Var(y)."""
    params = {"theta": torch.zeros(1, 2)}
    batch = Batch(torch.zeros(1, 3, 1), torch.tensor([[1.0, 2.0, 6.0]]))
    # Mean 3, squared deviations 4 + 1 + 9 = 14, over n − 1 = 2, for two coordinates: 14.
    found = deviation(Elementwise(lambda theta: theta), params, batch)
    torch.testing.assert_close(found, torch.tensor([14.0]).sqrt(), rtol=1e-14, atol=0.0)


def test_deviation_of_least_squares() -> None:
    """The gradient of an example is x (x · θ − y)."""
    family = LeastSquares(support=6)
    batch = family.sample(2, generator("sample")).support
    params = family.init(2, generator("init"))
    errors = torch.einsum("bnd,bd->bn", batch.x, family.vector(params)) - batch.y
    expected = (batch.x * errors[..., None]).var(dim=1).sum(1).sqrt()
    found = deviation(family, params, batch)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)  # rounding


def test_sigma_of_least_squares_is_known_and_never_falls() -> None:
    """With x ~ N(0, I) and y ~ N(0, 1) its square is 3 + 4 ‖θ‖²; θ goes out and back."""
    n = 40_000
    family = LeastSquares(support=n)
    held = family.sample(1, generator("held")).support
    points = [family.params(torch.full((1, 3), size)) for size in (0.0, 1.0, 0.5)]
    path = Trajectory(points, torch.zeros(3, 1, 3))
    found = deviations(family, path, held)
    expected = torch.tensor([[3.0], [15.0], [15.0]]).sqrt()
    # ‖x (x · θ − y)‖² has a deviation of some four times its mean of 15: 2 % of it for the mean of
    # so many, 1 % for the root; five of them.
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.0)


def test_sigma_is_not_nothing_where_the_loss_is_flat_at_the_end() -> None:
    """A hinge that becomes inactive, as that of an attack."""
    hinge = Elementwise(torch.relu)
    batch = hinge.sample(1, generator("held")).support
    points = [{"theta": torch.full((1, 2), size)} for size in (1.0, -1.0, -2.0)]
    found = deviations(hinge, Trajectory(points, torch.zeros(3, 1, 2)), batch)
    assert deviation(hinge, points[-1], batch) == 0
    assert (found == found[0]).all() and found[0] > 0


@pytest.mark.parametrize("kind", ["initial", "moved"])
def test_jacobian_norm_is_the_largest_singular_value(kind: str) -> None:
    rule, family = learner(), sine()
    meta = phi(rule) if kind == "moved" else rule.initial(family, generator("phi"))
    drawn = sample_draws(family, settings(), generator("draws"))
    path = trajectory(rule, meta, family, drawn.start, drawn.support, 5)
    for steps in (1, 5):
        inputs = path.gradients[:steps]
        found = jacobian_norms(rule, meta, inputs, generator("probe"))
        assert found.shape == (N_TASKS * N_DRAWS,)
        for index in range(0, N_TASKS * N_DRAWS, 2):
            start = of_task(drawn.start, index)
            norms = [
                torch.linalg.matrix_norm(
                    full_jacobian(rule, meta, start, path.gradients[:k, index]), 2
                )
                for k in range(1, steps + 1)
            ]
            # A lower bound, which two power iterations bring near; rounding above it.
            assert 0.98 * max(norms) < found[index] < (1 + 1e-12) * max(norms)


def full_jacobian(rule: Learner, meta: Params, params: Params, inputs: Tensor) -> Tensor:
    """∂θ⁽ᴷ⁾/∂φ with constant inputs (K, P), one row after the other: (P, |φ|)."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in meta.items()}
    tuner = rule.tuner(leaves)
    state = tuner.start(params)
    for gradient in inputs:
        state, params = tuner.step(state, params, unflatten(gradient, params))

    def row(entry: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(entry, list(leaves.values()), retain_graph=True)

    return torch.stack(
        [torch.cat([leaf.flatten() for leaf in row(entry)]) for entry in vector(params)]
    )


def test_jacobian_norm_of_a_deaf_fine_tuner_is_known() -> None:
    """One column of −0.1 k in P rows: 0.1 K √P."""
    rule = learner()
    meta = deaf(rule.initial(sine(), generator("phi")))
    inputs = torch.randn(4, 2, 9, generator=generator("inputs"))
    found = jacobian_norms(rule, meta, inputs, generator("probe"))
    torch.testing.assert_close(found, torch.full((2,), 0.1 * 4 * 3.0), rtol=1e-9, atol=0.0)


def test_the_rate_by_hand() -> None:
    assert rate(4, 16) == 0.5 + 0.25
