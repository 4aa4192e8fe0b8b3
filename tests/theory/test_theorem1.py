"""Theorem 1's measurement: every part of it against a plain computation or a known case."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from closed_forms import Elementwise, LeastSquares
from tiny import experiment_settings, tiny_images
from torch import Tensor

from lft.config import ClassificationFamily, GapSettings, SineFamily
from lft.errors import UsageError
from lft.meta.gradients import value_and_grad
from lft.meta.learner import Learner
from lft.methods import METHODS
from lft.seeding import generator
from lft.tasks.base import TaskFamily
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.theory import theorem1
from lft.theory.theorem1 import Case, Draws
from lft.types import Batch, Params, unflatten

N_TASKS, N_DRAWS = 2, 3
CASE = Case(support=2, query=3, steps=5)

pytestmark = pytest.mark.usefixtures("float64")


def settings(**changes: Any) -> GapSettings:
    values: dict[str, Any] = {
        "experiments": (),
        "sizes": (2, 4),
        "fixed_size": 3,
        "steps": (1, 5),
        "tasks": N_TASKS,
        "draws": N_DRAWS,
    }
    return GapSettings(**(values | changes))


def learner() -> Learner:
    return Learner(METHODS["lft"], experiment_settings("sine"), "first", "torch")


def sine() -> Sine:
    return Sine(SineFamily(support=1, query=1, hidden=(4,)))


def classification() -> Classification:
    images = tiny_images(1, 12)
    family = ClassificationFamily(source="x", net="mlp", support=1, query=1, widths=(4,))
    return Classification(family, images, Pools(images, "disjoint", 0.2))


def phi(rule: Learner) -> Params:
    """φ away from its initial output layer, a tenth of the others."""
    meta = rule.initial(sine(), generator("phi"))
    return meta | {"lstm/out.w": meta["lstm/out.w"] * 10}


def measured(rule: Learner, meta: Params, family: TaskFamily) -> dict[Case, dict[str, Tensor]]:
    draws = theorem1.sample_draws(family, settings(), generator("draws"))
    found = theorem1.gaps(rule, meta, family, draws, settings(), generator("probe"))
    return dict(found)


def vector(leaves: Params) -> Tensor:
    return torch.cat([leaf.flatten() for leaf in leaves.values()])


def of_task(leaves: Params, task: int) -> Params:
    return {name: leaf[task : task + 1] for name, leaf in leaves.items()}


def of_batch(batch: Batch, task: int, n_classes: int, size: int) -> Batch:
    """One task, the first ``size`` examples of each of its classes, picked by index."""
    per_class = batch.size // n_classes
    chosen = [label * per_class + i for label in range(n_classes) for i in range(size)]
    return Batch(*(leaf[task : task + 1, chosen] for leaf in batch))


def outer_gradient(
    rule: Learner, meta: Params, family: TaskFamily, start: Params, support: Batch, outer: Batch
) -> Tensor:
    """∇_φ (1/K) Σ_k f(θ⁽ᵏ⁾; outer) of one task, inner gradients detached, by a plain loop."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in meta.items()}
    tuner, params = rule.tuner(leaves), start
    state, loss = tuner.start(params), torch.zeros(())
    for _ in range(CASE.steps):
        state, params = tuner.step(state, params, value_and_grad(family, params, support)[1])
        loss = loss + family.loss(params, outer)[0] / CASE.steps
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaves.values()))])


@pytest.mark.parametrize("make", [sine, classification])
def test_gap_and_parts_are_norms_of_outer_gradients(make: Any) -> None:
    rule, family = learner(), make()
    meta, n_classes = phi(rule), theorem1.examples(family, 1)
    drawn = theorem1.sample_draws(family, settings(), generator("draws"))
    gaps, variances = [], []
    for task in range(N_TASKS):
        for draw in range(N_DRAWS):
            index, other = task * N_DRAWS + draw, task * N_DRAWS + (draw - 1) % N_DRAWS
            support = of_batch(drawn.support, index, n_classes, CASE.support)
            fresh = of_batch(drawn.support, other, n_classes, CASE.support)
            query = of_batch(drawn.query, index, n_classes, CASE.query)
            on_tr, on_new, on_val = (
                outer_gradient(rule, meta, family, of_task(drawn.start, index), support, data)
                for data in (support, fresh, query)
            )
            gaps.append(on_val - on_tr)
            variances.append(on_val - on_new)
    found = measured(rule, meta, family)[CASE]
    by_task = torch.stack(gaps).view(N_TASKS, N_DRAWS, -1)
    # float64: the same linear map, applied to a difference or to its terms.
    exactly = {"rtol": 1e-9, "atol": 0.0}
    torch.testing.assert_close(found["gap"], by_task.norm(dim=2).mean(1), **exactly)
    expected = torch.stack(variances).norm(dim=1).view(N_TASKS, N_DRAWS).mean(1)
    torch.testing.assert_close(found["variance_part"], expected, **exactly)
    products = [
        torch.stack([d @ other for d, other in itertools.permutations(draws, 2)]).mean()
        for draws in by_task
    ]
    # A difference of two sums of squares, of which it may be a small part.
    torch.testing.assert_close(found["fitting_square"], torch.stack(products), rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("make", [sine, classification])
def test_products_of_gradients_at_the_same_points(make: Any) -> None:
    rule, family = learner(), make()
    meta, n_classes = phi(rule), theorem1.examples(family, 1)
    drawn = theorem1.sample_draws(family, settings(), generator("draws"))
    expected = torch.zeros(2, N_TASKS)
    for task in range(N_TASKS):
        for draw in range(N_DRAWS):
            index, other = task * N_DRAWS + draw, task * N_DRAWS + (draw - 1) % N_DRAWS
            support = of_batch(drawn.support, index, n_classes, CASE.support)
            fresh = of_batch(drawn.support, other, n_classes, CASE.support)
            query = of_batch(drawn.query, index, n_classes, CASE.query)
            for params in plain_path(rule, meta, family, of_task(drawn.start, index), support):
                on_new, on_tr, on_val = (
                    vector(value_and_grad(family, params, data)[1])
                    for data in (fresh, support, query)
                )
                products = torch.stack([on_new @ on_val, on_tr @ on_val])
                expected[:, task] += products.detach() / (CASE.steps * N_DRAWS)
    found = measured(rule, meta, family)[CASE]
    together = torch.stack([found["gradient_square"], found["gradient_kept"]])
    torch.testing.assert_close(together, expected, rtol=1e-9, atol=0.0)  # rounding


def plain_path(
    rule: Learner, meta: Params, family: TaskFamily, params: Params, support: Batch
) -> Iterator[Params]:
    """θ⁽¹⁾ … θ⁽ᴷ⁾ of one task by a plain loop."""
    tuner = rule.tuner(meta)
    state = tuner.start(params)
    for _ in range(CASE.steps):
        state, params = tuner.step(state, params, value_and_grad(family, params, support)[1])
        yield params


def test_the_cases_vary_one_size_at_a_time() -> None:
    assert set(theorem1.cases(settings())) == {
        Case(2, 3, 5), Case(4, 3, 5), Case(3, 2, 5), Case(3, 4, 5), Case(3, 3, 5), Case(3, 3, 1),
    }  # fmt: skip
    assert set(measured(learner(), phi(learner()), sine())) == set(theorem1.cases(settings()))


def test_parts_of_known_vectors() -> None:
    """One task, two draws."""
    d, variance = torch.tensor([[3.0, 4.0], [3.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    found = theorem1.parts(d, variance, 2)
    assert found["fitting_square"].tolist() == [9.0]
    assert found["gap"].tolist() == [4.0]  # (5 + 3) / 2
    assert found["variance_part"].tolist() == [1.5]
    opposite = theorem1.parts(d * torch.tensor([[1.0], [-1.0]]), variance, 2)
    assert opposite["fitting_square"].tolist() == [-9.0]


def least_squares(meta: Params, n_draws: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Five steps from θ = 0 on 2 examples, many draws: the inputs and gradients on D_tr, on D_new
    and on D_val."""
    family = LeastSquares(support=2, query=2)
    drawn = family.sample(n_draws, generator("many"))
    start = family.params(torch.zeros(n_draws, 3))
    path = theorem1.trajectory(learner(), meta, family, start, drawn.support, 5)
    fresh = theorem1.other_draw(drawn.support, n_draws)
    on_new, on_val = (theorem1.gradients(family, path, data) for data in (fresh, drawn.query))
    return path.gradients[:5], path.gradients[1:], on_new, on_val


def deaf(meta: Params) -> Params:
    """A fine-tuner whose every update is 0.1, whatever it is fed: A1 holds for it."""
    return meta | {
        "lstm/layer0.w_ih": torch.zeros_like(meta["lstm/layer0.w_ih"]),
        "lstm/out.w": torch.zeros(3),
        "lstm/out.b": torch.tensor(1.0),
    }


def follower(meta: Params) -> Params:
    """A fine-tuner that follows the gradient's sign: gates open, except forgetting."""
    weights = {name: torch.zeros_like(leaf) for name, leaf in meta.items()}
    weights["lstm/layer0.b"][[0, 9]] = 3.0
    weights["lstm/layer0.b"][3] = -3.0
    weights["lstm/layer0.w_ih"][6, 1] = 1.0
    weights["lstm/out.w"][0] = 2.0
    return weights


def test_the_fitting_part_is_nothing_but_fitting() -> None:
    n_draws, meta = 400, learner().initial(sine(), generator("phi"))
    # Deaf, neither θ⁽ᵏ⁾ nor G_k depends on D_tr. Then ⟨d, d'⟩ averaged over all pairs, in units of
    # E‖d‖² / n ≥ (E‖d‖)² / n, is at most a χ² of one degree of freedom less its mean, which exceeds
    # 24 once in a million times; the seed is fixed.
    limit = 24 / n_draws
    shares = []
    for rule in (deaf, follower):
        inputs, *sets = least_squares(rule(meta), n_draws)
        found = theorem1.compare(learner(), rule(meta), inputs, *sets, [0.2] * 5, n_draws)
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
    _, on_tr, on_new, on_val = least_squares(deaf(meta), n_draws)
    found = theorem1.products(on_tr, on_new, on_val / 5, n_draws)
    assert limit < 0.2 * sum(squares) / 5
    assert abs(found["gradient_square"] - sum(squares) / 5) < limit
    assert abs(found["gradient_kept"] - sum(squares) / 5) < limit
    _, on_tr, on_new, on_val = least_squares(follower(meta), n_draws)
    followed = theorem1.products(on_tr, on_new, on_val / 5, n_draws)
    assert followed["gradient_kept"] < 0 < limit < followed["gradient_square"]


def test_the_bound_is_the_theorem_s_right_hand_side() -> None:
    for family in (sine(), classification()):
        n_classes = theorem1.examples(family, 1)
        for case, values in measured(learner(), phi(learner()), family).items():
            # Σ_k w_k = 1.
            rate = (n_classes * case.support) ** -0.5 + (n_classes * case.query) ** -0.5
            expected = values["jacobian"] * values["sigma"] * rate
            torch.testing.assert_close(values["bound"], expected, rtol=1e-12, atol=0.0)  # rounding


def test_the_bound_covers_what_satisfies_its_assumptions() -> None:
    """The variance part, whose data θ⁽ᵏ⁾ was not fitted on: proven on average over draws."""
    for values in measured(learner(), phi(learner()), sine()).values():
        assert (values["variance_part"] < values["bound"]).all()


def test_sigma_is_the_largest_deviation_of_single_gradients() -> None:
    rule, family = learner(), sine()
    meta = phi(rule)
    drawn = theorem1.sample_draws(family, settings(), generator("draws"))
    variances = torch.zeros(N_TASKS, N_DRAWS, 4)
    for task in range(N_TASKS):
        for draw in range(N_DRAWS):
            index = task * N_DRAWS + draw
            support = of_batch(drawn.support, index, 1, CASE.support)
            params, tuner = of_task(drawn.start, index), rule.tuner(meta)
            state = tuner.start(params)
            for step in range(1, 6):
                grads = value_and_grad(family, params, support)[1]
                state, params = tuner.step(state, params, grads)
                if step > 1:  # ⌈K / 4⌉, ⌈K / 2⌉, ⌈3K / 4⌉, K are 2, 3, 4, 5
                    each = torch.stack(
                        [
                            vector(value_and_grad(family, params, one)[1])
                            for one in single_examples(drawn.query, index)
                        ]
                    )
                    # Unbiased variances of the coordinates, added up.
                    variances[task, draw, step - 2] = each.var(dim=0).sum().detach()
    expected = variances.mean(1).amax(1).sqrt()
    found = measured(rule, meta, family)[CASE]["sigma"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0.0)  # rounding


def single_examples(batch: Batch, task: int) -> list[Batch]:
    return [Batch(*(leaf[task : task + 1, i : i + 1] for leaf in batch)) for i in range(batch.size)]


def test_deviation_where_gradients_are_known() -> None:
    """f = Σ_d θ_d · y: the gradient of an example is y (1, 1), its variance 2 Var(y)."""
    params = {"theta": torch.zeros(1, 2)}
    batch = Batch(torch.zeros(1, 3, 1), torch.tensor([[1.0, 2.0, 6.0]]))
    # Mean 3, squared deviations 4 + 1 + 9 = 14, over n − 1 = 2, for two coordinates: 14.
    found = theorem1.deviation(Elementwise(lambda theta: theta), params, batch)
    torch.testing.assert_close(found, torch.tensor([14.0]).sqrt(), rtol=1e-14, atol=0.0)


def test_deviation_of_least_squares() -> None:
    """The gradient of an example is x (x · θ − y)."""
    family = LeastSquares(support=6)
    batch = family.sample(2, generator("sample")).support
    params = family.init(2, generator("init"))
    errors = torch.einsum("bnd,bd->bn", batch.x, family.vector(params)) - batch.y
    expected = (batch.x * errors[..., None]).var(dim=1).sum(1).sqrt()
    found = theorem1.deviation(family, params, batch)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)  # rounding


@pytest.mark.parametrize("kind", ["initial", "moved"])
def test_jacobian_norm_is_the_largest_singular_value(kind: str) -> None:
    rule, family = learner(), sine()
    meta = phi(rule) if kind == "moved" else rule.initial(family, generator("phi"))
    drawn = theorem1.sample_draws(family, settings(), generator("draws"))
    path = theorem1.trajectory(rule, meta, family, drawn.start, drawn.support, 5)
    for steps in (1, 3, 5):
        inputs = path.gradients[:steps]
        found = theorem1.jacobian_norm(rule, meta, inputs, N_DRAWS, generator("probe"))
        for task in range(N_TASKS):
            index = task * N_DRAWS
            norms = [
                torch.linalg.matrix_norm(
                    full_jacobian(
                        rule, meta, of_task(drawn.start, index), path.gradients[:k, index]
                    ),
                    2,
                )
                for k in range(1, steps + 1)
            ]
            # A lower bound, which two power iterations bring near; rounding above it.
            assert 0.98 * max(norms) < found[task] < (1 + 1e-12) * max(norms)


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


def image_draws() -> Draws:
    return theorem1.sample_draws(classification(), settings(), generator("draws"))


def test_draws_of_a_task_share_classes_and_start_but_no_image() -> None:
    draws = image_draws()
    assert draws.support.x.shape[:2] == draws.query.x.shape[:2] == (N_TASKS * N_DRAWS, 2 * 4)
    for task in range(N_TASKS):
        indices = range(task * N_DRAWS, (task + 1) * N_DRAWS)
        labels = draws.support.y[indices[0]].tolist()
        assert labels == [labels[0]] * 4 + [labels[-1]] * 4
        seen: set[tuple[float, ...]] = set()
        for index in indices:
            assert draws.support.y[index].tolist() == draws.query.y[index].tolist() == labels
            torch.testing.assert_close(
                vector(of_task(draws.start, index)), vector(of_task(draws.start, indices[0]))
            )
            for batch in (draws.support, draws.query):
                seen |= {tuple(image.tolist()) for image in batch.x[index].flatten(1)}
        assert len(seen) == N_DRAWS * 2 * 8


def test_images_keep_their_labels() -> None:
    images = tiny_images(1, 12)
    family, draws = classification(), image_draws()
    pixels = (images.train_images.to(torch.float64) / 255 - family.mean) / family.std
    known = {
        tuple(image.tolist()): int(label)
        for image, label in zip(pixels.flatten(1), images.train_labels, strict=True)
    }
    for batch in (draws.support, draws.query):
        for image, label in zip(batch.x.flatten(0, 1).flatten(1), batch.y.flatten(), strict=True):
            assert known[tuple(image.tolist())] == label


def test_smaller_sets_are_parts_of_larger_ones_of_every_class() -> None:
    batch = Batch(torch.arange(12).view(1, 12, 1), torch.arange(12).view(1, 12))
    assert theorem1.first(batch, 3, 2).y.tolist() == [[0, 1, 4, 5, 8, 9]]
    assert theorem1.first(batch, 3, 9).y.tolist() == [list(range(12))]


def test_the_other_draw_is_one_of_the_same_task() -> None:
    batch = Batch(torch.arange(6).view(6, 1, 1), torch.arange(6).view(6, 1))
    assert theorem1.other_draw(batch, 3).y.flatten().tolist() == [2, 0, 1, 5, 3, 4]


def test_resized_leaves_the_family_as_it_was_and_refuses_too_few_images() -> None:
    family = classification()
    sized = theorem1.resized(family, 12)
    assert (family.settings.support, sized.settings.support, sized.settings.query) == (1, 12, 12)
    assert sized.sample(1, generator("tasks"), "train").query.size == 2 * 12
    # 30 images of a class, of which a fifth is for meta-validation.
    with pytest.raises(UsageError, match="24 usable images for meta-train, but a task needs 26"):
        theorem1.resized(family, 13)


def test_sizes_count_all_examples_of_a_task() -> None:
    assert theorem1.examples(sine(), 5) == 5
    assert theorem1.examples(classification(), 5) == 2 * 5
