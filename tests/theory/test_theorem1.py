"""Theorem 1's measurement as a whole: both series against plain loops, and a case that is known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from theory_cases import (
    N_DRAWS,
    N_TASKS,
    classification,
    deaf,
    learner,
    least_squares,
    of_batch,
    of_task,
    phi,
    settings,
    sine,
    vector,
)
from torch import Tensor

from lft.meta.gradients import value_and_grad
from lft.meta.learner import Learner
from lft.seeding import generator
from lft.tasks.base import TaskFamily
from lft.theory import theorem1
from lft.theory.design import Case, Draws, cases, frozen_cases, sample_draws
from lft.theory.theorem1 import FITTED, FROZEN
from lft.theory.trajectory import gradients, meta_gradients, trajectory
from lft.types import Batch, Params

STEPS = 5
Found = dict[tuple[str, Case], dict[str, Tensor]]

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(params=[sine, classification])
def family(request: pytest.FixtureRequest) -> TaskFamily:
    made: TaskFamily = request.param()
    return made


def measured(family: TaskFamily) -> tuple[Draws, Found]:
    rule = learner()
    draws = sample_draws(family, settings(), generator("draws"))
    found = theorem1.gaps(rule, phi(rule), family, draws, settings(), generator("probe"))
    return draws, {(series, case): quantities for series, case, quantities in found}


def places() -> Iterator[tuple[int, int]]:
    """Tasks, and the place of each of their draws."""
    for task in range(N_TASKS):
        for draw in range(N_DRAWS):
            yield task, task * N_DRAWS + draw


def outer_gradient(
    rule: Learner, meta: Params, family: TaskFamily, start: Params, support: Batch, outer: Batch
) -> Tensor:
    """∇_φ (1/K) Σ_k f(θ⁽ᵏ⁾; outer) of one task, inner gradients detached, by a plain loop."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in meta.items()}
    tuner, params = rule.tuner(leaves), start
    state, loss = tuner.start(params), torch.zeros(())
    for _ in range(STEPS):
        state, params = tuner.step(state, params, value_and_grad(family, params, support)[1])
        loss = loss + family.loss(params, outer)[0] / STEPS
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaves.values()))])


def path_of(
    rule: Learner, meta: Params, family: TaskFamily, params: Params, support: Batch
) -> Iterator[Params]:
    """θ⁽⁰⁾ … θ⁽ᴷ⁾ of one task by a plain loop."""
    tuner = rule.tuner(meta)
    state = tuner.start(params)
    yield params
    for _ in range(STEPS):
        state, params = tuner.step(state, params, value_and_grad(family, params, support)[1])
        yield params


def test_every_point_of_both_series_is_there(family: TaskFamily) -> None:
    _, found = measured(family)
    expected = [(FITTED, case) for case in cases(settings())]
    expected += [(FROZEN, case) for case in frozen_cases(settings())]
    assert set(found) == set(expected)
    for values in found.values():
        assert all(value.shape == (N_TASKS,) for value in values.values())


def test_gap_and_parts_are_norms_of_outer_gradients(family: TaskFamily) -> None:
    rule, n_classes = learner(), family.settings.classes_per_task
    draws, found = measured(family)
    case = Case(support=2, query=4, steps=STEPS)
    gaps, variances = [], []
    for _, index in places():
        support = of_batch(draws.support, index, n_classes, case.support)
        fresh = of_batch(draws.fresh, index, n_classes, case.support)
        query = of_batch(draws.query, index, n_classes, case.query)
        on_tr, on_new, on_val = (
            outer_gradient(rule, phi(rule), family, of_task(draws.start, index), support, data)
            for data in (support, fresh, query)
        )
        gaps.append(on_val - on_tr)
        variances.append(on_val - on_new)
    values = found[FITTED, case]
    by_task = torch.stack(gaps).view(N_TASKS, N_DRAWS, -1)
    # float64: the same linear map, applied to a difference or to its terms.
    exactly = {"rtol": 1e-9, "atol": 0.0}
    torch.testing.assert_close(values["gap"], by_task.norm(dim=2).mean(1), **exactly)
    expected = torch.stack(variances).norm(dim=1).view(N_TASKS, N_DRAWS).mean(1)
    torch.testing.assert_close(values["variance_part"], expected, **exactly)
    products = [
        torch.stack([d @ other for d, other in itertools.permutations(of_draws, 2)]).mean()
        for of_draws in by_task
    ]
    # A difference of two sums of squares, of which it may be a small part.
    torch.testing.assert_close(values["fitting_square"], torch.stack(products), rtol=1e-8, atol=0.0)


def test_the_frozen_trajectory_is_that_of_the_fixed_size(family: TaskFamily) -> None:
    rule, n_classes = learner(), family.settings.classes_per_task
    draws, found = measured(family)
    for case in frozen_cases(settings()):
        norms = torch.zeros(N_TASKS)
        for task, index in places():
            support = of_batch(draws.support, index, n_classes, settings().fixed_size)
            fresh = of_batch(draws.fresh, index, n_classes, case.support)
            query = of_batch(draws.query, index, n_classes, case.query)
            on_new, on_val = (
                outer_gradient(rule, phi(rule), family, of_task(draws.start, index), support, data)
                for data in (fresh, query)
            )
            norms[task] += (on_val - on_new).norm() / N_DRAWS
        variance = found[FROZEN, case]["variance_part"]
        torch.testing.assert_close(variance, norms, rtol=1e-9, atol=0.0)  # as above
        same = found[FITTED, Case(settings().fixed_size, settings().fixed_size, STEPS)]
        for constant in ("sigma", "jacobian"):
            torch.testing.assert_close(found[FROZEN, case][constant], same[constant])


def test_products_of_gradients_at_the_same_points(family: TaskFamily) -> None:
    rule, n_classes = learner(), family.settings.classes_per_task
    draws, found = measured(family)
    case = Case(support=2, query=4, steps=STEPS)
    expected = torch.zeros(2, N_TASKS)
    for task, index in places():
        support = of_batch(draws.support, index, n_classes, case.support)
        fresh = of_batch(draws.fresh, index, n_classes, case.support)
        query = of_batch(draws.query, index, n_classes, case.query)
        path = path_of(rule, phi(rule), family, of_task(draws.start, index), support)
        for params in itertools.islice(path, 1, None):
            on_new, on_tr, on_val = (
                vector(value_and_grad(family, params, data)[1]) for data in (fresh, support, query)
            )
            products = torch.stack([on_new @ on_val, on_tr @ on_val])
            expected[:, task] += products.detach() / (STEPS * N_DRAWS)
    values = found[FITTED, case]
    together = torch.stack([values["gradient_square"], values["gradient_kept"]])
    torch.testing.assert_close(together, expected, rtol=1e-9, atol=0.0)  # rounding


def test_sigma_is_the_largest_deviation_along_the_trajectory_on_its_own_examples(
    family: TaskFamily,
) -> None:
    rule, n_classes = learner(), family.settings.classes_per_task
    draws, found = measured(family)
    size, n_held = 2, n_classes * settings().sigma_size
    sigma = torch.zeros(N_TASKS)
    for task, index in places():
        support = of_batch(draws.support, index, n_classes, size)
        singles = [
            Batch(*(leaf[index : index + 1, i : i + 1] for leaf in draws.held))
            for i in range(n_held)
        ]
        variances = []
        for params in path_of(rule, phi(rule), family, of_task(draws.start, index), support):
            each = [vector(value_and_grad(family, params, one)[1]) for one in singles]
            # Unbiased variances of the coordinates, added up.
            variances.append(torch.stack(each).var(dim=0).sum())
        sigma[task] += torch.stack(variances).max().sqrt() / N_DRAWS
    values = found[FITTED, Case(size, size, STEPS)]["sigma"]
    torch.testing.assert_close(values, sigma, rtol=1e-9, atol=0.0)  # rounding


def test_the_bound_covers_what_satisfies_its_assumptions(family: TaskFamily) -> None:
    """The variance part, whose data θ⁽ᵏ⁾ was not fitted on: proven on average over draws."""
    for values in measured(family)[1].values():
        assert (values["variance_part"] < values["bound"]).all()


def test_the_bound_is_the_theorem_s_right_hand_side() -> None:
    """With one draw for each, which a mean over draws leaves as it is."""
    rule, family = learner(), classification()
    alike = settings(draws=2)
    draws = sample_draws(family, alike, generator("draws"))
    once = Draws(
        *(Batch(*(leaf[::2].repeat_interleave(2, 0) for leaf in batch)) for batch in draws[:4]),
        draws.start,
    )
    for _, case, values in theorem1.gaps(rule, phi(rule), family, once, alike, generator("probe")):
        # Σ_k w_k = 1, two classes.
        rate = (2 * case.support) ** -0.5 + (2 * case.query) ** -0.5
        expected = values["jacobian"] * values["sigma"] * rate
        # The power iteration starts anew for every draw, and comes within 1 %.
        torch.testing.assert_close(values["bound"], expected, rtol=0.01, atol=0.0)


def test_least_squares_under_a_fine_tuner_that_is_deaf_are_known() -> None:
    """x ~ N(0, I) in three dimensions, y ~ N(0, 1) and θ⁽ᵏ⁾ = −s (1, 1, 1) with s = 0.1 k.

    Of ∂θ⁽ᵏ⁾/∂φ one column is not 0, with −0.1 k in every row, so ∇_φ(X) is
    −0.1 Σ_k w_k k 1ᵀ∇f(θ⁽ᵏ⁾; X) in that column. An example's 1ᵀ∇f is −s u² − u y with
    u ~ N(0, 3), whose covariance between steps is 18 s s' + 3; the gap of two sets of n is of
    two means of n of them.
    """
    rule, n_draws = learner(), 20_000
    meta = deaf(rule.initial(sine(), generator("phi")))
    k = torch.arange(1.0, STEPS + 1)
    w = torch.full((STEPS,), 1 / STEPS)
    covariance = 18 * torch.outer(0.1 * k, 0.1 * k) + 3
    single = 0.01 * (w * k) @ covariance @ (w * k)
    squares = {}
    for size in (2, 8, 32):
        family, start, support, fresh, query = least_squares(n_draws, size)
        path = trajectory(rule, meta, family, start, support, STEPS)
        on_new, on_val = (gradients(family, path, data) for data in (fresh, query))
        d = -0.1 * torch.einsum("k,kbp->b", w * k, on_val - on_new)
        few = w[:, None, None] * (on_val - on_new)[:, :4]
        vectors = meta_gradients(rule, meta, path.gradients[:STEPS, :4], few)
        torch.testing.assert_close(vectors.norm(dim=1), d[:4].abs(), rtol=1e-9, atol=0.0)
        squares[size] = d.square().mean()
        # Five standard errors of the mean miss once in a million; the seed is fixed.
        error = float(d.square().std()) / n_draws**0.5
        assert abs(squares[size] - single * 2 / size) < 5 * error
    slope = float((squares[32] / squares[2]).log() / 2 / torch.tensor(16.0).log())
    # Two mean squares to 1 to 2 % each; half their relative error over ln 16.
    assert slope == pytest.approx(-0.5, abs=0.02)
