"""Gap and parts of known vectors; fitting and lost gradients of fine-tuners whose A1 is known."""

from __future__ import annotations

import pytest
import torch
from theory_cases import deaf, follower, learner, least_squares, sine
from torch import Tensor

from lft.seeding import generator
from lft.theory.gap import parts, products
from lft.theory.trajectory import gradients, meta_gradients, trajectory
from lft.types import Params

pytestmark = pytest.mark.usefixtures("float64")


def test_parts_of_known_vectors() -> None:
    """One task, two draws."""
    d, variance = torch.tensor([[3.0, 4.0], [3.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    found = parts(d, variance, 2)
    assert found["fitting_square"].tolist() == [9.0]
    assert found["gap"].tolist() == [4.0]  # (5 + 3) / 2
    assert found["variance_part"].tolist() == [1.5]
    opposite = parts(d * torch.tensor([[1.0], [-1.0]]), variance, 2)
    assert opposite["fitting_square"].tolist() == [-9.0]


def on_sets(meta: Params, n_draws: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Five steps from θ = 0 on 2 examples, many draws: the inputs, and gradients on D_tr, on D_new
    and on D_val."""
    family, start, support, fresh, query = least_squares(n_draws)
    path = trajectory(learner(), meta, family, start, support, 5)
    on_new, on_val = (gradients(family, path, data) for data in (fresh, query))
    return path.gradients[:5], path.gradients[1:], on_new, on_val


def test_the_fitting_part_is_nothing_but_fitting() -> None:
    n_draws, meta = 400, learner().initial(sine(), generator("phi"))
    # Deaf, neither θ⁽ᵏ⁾ nor G_k depends on D_tr. Then ⟨d, d'⟩ averaged over all pairs, in units of
    # E‖d‖² / n ≥ (E‖d‖)² / n, is at most a χ² of one degree of freedom less its mean, which exceeds
    # 24 once in a million times; the seed is fixed.
    limit = 24 / n_draws
    shares = []
    for rule in (deaf, follower):
        inputs, on_tr, _, on_val = on_sets(rule(meta), n_draws)
        gap = meta_gradients(learner(), rule(meta), inputs, (on_val - on_tr) / 5)
        found = parts(gap, gap, n_draws)
        shares.append(found["fitting_square"] / found["gap"].square())
    assert abs(shares[0]) < limit < shares[1]


def test_the_gradient_is_kept_on_d_tr_where_that_was_not_fitted() -> None:
    n_draws, meta = 40_000, learner().initial(sine(), generator("phi"))
    # x ~ N(0, I) and y ~ N(0, 1), so ∇f(θ) = θ; deaf, θ⁽ᵏ⁾ = −0.1 k (1, 1, 1).
    squares = [3 * (0.1 * k) ** 2 for k in range(1, 6)]
    # An example's gradient x (x · θ − y) has the covariance (t + 1) I + θθᵀ with t = ‖θ‖², a set's
    # half of it, C. The product of two has the variance 2 θᵀCθ + tr C². Five deviations of the mean
    # over draws miss once in a million; the seed is fixed. Over k, deviations at most add up.
    spreads = [
        (t * (2 * t + 1) + (3 * (t + 1) ** 2 + 2 * t * (t + 1) + t**2) / 4) ** 0.5 for t in squares
    ]
    limit = 5 * sum(spreads) / 5 / n_draws**0.5
    _, on_tr, on_new, on_val = on_sets(deaf(meta), n_draws)
    found = products(on_tr, on_new, on_val / 5, n_draws)
    assert limit < 0.2 * sum(squares) / 5
    assert abs(found["gradient_square"] - sum(squares) / 5) < limit
    assert abs(found["gradient_kept"] - sum(squares) / 5) < limit
    _, on_tr, on_new, on_val = on_sets(follower(meta), n_draws)
    followed = products(on_tr, on_new, on_val / 5, n_draws)
    assert followed["gradient_kept"] < 0 < limit < followed["gradient_square"]
