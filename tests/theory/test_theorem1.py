"""Theorem 1's measurement: every part of it against a plain computation or a known case."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from closed_forms import Elementwise, LeastSquares
from tiny import experiment_settings, tiny_images
from torch import Tensor

from lft.config import ClassificationFamily, Run, SineFamily
from lft.errors import UsageError
from lft.gradients import value_and_grad
from lft.learner import Learner
from lft.metagradient import step_weights
from lft.methods import METHODS
from lft.seeding import generator
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.theory import theorem1
from lft.types import Batch, Params

RUN = Run("sine", "sine", "lft", "first", 0)
SIZES = (3, 4, 5)
"""Examples in D_tr and D_val, and steps K."""
N_TASKS = 2

pytestmark = pytest.mark.usefixtures("float64")


def learner() -> Learner:
    return Learner(METHODS["lft"], experiment_settings("sine"), "first", "torch")


def sine() -> Sine:
    return Sine(SineFamily(support=1, query=1, hidden=(4,)))


def phi(rule: Learner) -> Params:
    """φ away from its initial output layer, a tenth of the others."""
    meta = rule.initial(sine(), generator("phi"))
    return meta | {"lstm/out.w": meta["lstm/out.w"] * 10}


def classification() -> Classification:
    images = tiny_images(1, 12)
    settings = ClassificationFamily(source="x", net="mlp", support=1, query=1, widths=(4,))
    return Classification(settings, images, Pools(images, "disjoint", 0.2))


def vector(leaves: Params) -> Tensor:
    return torch.cat([leaf.flatten() for leaf in leaves.values()])


def outer_gradient(rule: Learner, meta: Params, support: Batch, outer: Batch) -> Tensor:
    """∇_φ Σ_k w_k f(θ⁽ᵏ⁾; outer), inner gradients detached, by a plain loop over all tasks.

    Returns:
        (B, |φ|), one row a task.
    """
    family = sine()
    rows = []
    for task in range(N_TASKS):
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in meta.items()}
        tuner = rule.tuner(leaves)
        params = {name: leaf[task : task + 1] for name, leaf in starts(rule, meta).items()}
        state, loss = tuner.start(params), torch.zeros(())
        one = Batch(*(leaf[task : task + 1] for leaf in support))
        for _ in range(SIZES[2]):
            grads = value_and_grad(family, params, one)[1]
            state, params = tuner.step(state, params, grads)
            loss = (
                loss
                + family.loss(params, Batch(*(x[task : task + 1] for x in outer)))[0] / SIZES[2]
            )
        grads_of_phi = torch.autograd.grad(loss, list(leaves.values()))
        rows.append(torch.cat([leaf.flatten() for leaf in grads_of_phi]))
    return torch.stack(rows)


def drawn(rule: Learner, meta: Params) -> tuple[Batch, Batch, Batch, Batch, Params]:
    """D_tr, D_val, D_new, further examples and θ⁽⁰⁾, in the order that the measurement draws."""
    n_tr, n_val, steps = SIZES
    random = generator("theorem 1", "sine", 0, n_tr, n_val, steps)
    family = Sine(
        SineFamily(support=n_tr, query=n_val + n_tr + theorem1.SIGMA_EXAMPLES, hidden=(4,))
    )
    tasks = family.sample(N_TASKS, random, "train")
    cuts = (0, n_val, n_val + n_tr, n_val + n_tr + theorem1.SIGMA_EXAMPLES)
    validation, fresh, extra = (
        Batch(tasks.query.x[:, low:high], tasks.query.y[:, low:high])
        for low, high in pairwise(cuts)
    )
    return tasks.support, validation, fresh, extra, family.init(N_TASKS, random)


def starts(rule: Learner, meta: Params) -> Params:
    return drawn(rule, meta)[4]


@pytest.fixture
def measured() -> dict[str, Tensor]:
    rule = learner()
    n_tr, n_val, steps = SIZES
    values = theorem1.gap(rule, phi(rule), RUN, sine(), n_tr, n_val, steps, N_TASKS)
    return {name: torch.tensor(value) for name, value in values.items()}


def test_gap_and_parts_are_differences_of_outer_gradients(measured: dict[str, Tensor]) -> None:
    rule = learner()
    meta = phi(rule)
    support, validation, fresh, _, _ = drawn(rule, meta)
    on_val, on_new, on_tr = (
        outer_gradient(rule, meta, support, data) for data in (validation, fresh, support)
    )
    for name, expected in {
        "gap": on_val - on_tr,
        "variance_part": on_val - on_new,
        "fitting_part": on_new - on_tr,
    }.items():
        assert (expected.norm(dim=1) > 0).all()
        # float64: the same linear map, applied to a difference or to its terms.
        torch.testing.assert_close(measured[name], expected.norm(dim=1), rtol=1e-10, atol=0.0)


def test_each_side_of_the_gap_s_triangle_is_shorter_than_the_others(
    measured: dict[str, Tensor],
) -> None:
    gap, variance, fitting = (measured[n] for n in ("gap", "variance_part", "fitting_part"))
    rounding = 1 + 1e-12
    assert (gap <= (variance + fitting) * rounding).all()
    assert (variance <= (gap + fitting) * rounding).all()
    assert (fitting <= (gap + variance) * rounding).all()


def test_the_bound_is_the_theorem_s_right_hand_side(measured: dict[str, Tensor]) -> None:
    n_tr, n_val, steps = SIZES
    assert sum(step_weights("uniform", steps)) == pytest.approx(1)  # Σ w_k, left out of the bound
    rate = 1 / math.sqrt(n_tr) + 1 / math.sqrt(n_val)
    expected = measured["jacobian"] * measured["sigma"] * rate
    torch.testing.assert_close(measured["bound"], expected, rtol=1e-14, atol=0.0)  # rounding


def test_sigma_is_the_largest_deviation_of_single_gradients(measured: dict[str, Tensor]) -> None:
    rule = learner()
    meta, family = phi(rule), sine()
    support, _, _, extra, params = drawn(rule, meta)
    tuner = rule.tuner(meta)
    state = tuner.start(params)
    deviations = []
    for step in range(1, SIZES[2] + 1):
        state, params = tuner.step(state, params, value_and_grad(family, params, support)[1])
        if step not in (2, 3, 4, 5):  # ⌈K / 4⌉, ⌈K / 2⌉, ⌈3K / 4⌉, K
            continue
        for task in range(N_TASKS):
            one = {name: leaf[task : task + 1] for name, leaf in params.items()}
            each = torch.stack(
                [
                    vector(
                        value_and_grad(
                            family,
                            one,
                            Batch(*(leaf[task : task + 1, i : i + 1] for leaf in extra)),
                        )[1]
                    )
                    for i in range(theorem1.SIGMA_EXAMPLES)
                ]
            )
            # Unbiased variances of the coordinates, added up.
            deviations.append(each.var(dim=0).sum().sqrt().detach())
    largest = torch.stack(deviations).view(-1, N_TASKS).amax(0)
    torch.testing.assert_close(measured["sigma"], largest, rtol=1e-10, atol=0.0)  # rounding


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


def test_jacobian_norms_estimate_the_frobenius_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = 400
    monkeypatch.setattr(theorem1, "PROBES", probes)
    rule = learner()
    meta, family, steps = phi(rule), sine(), 3
    support = family.sample(N_TASKS, generator("sample")).support
    path = theorem1.trajectory(rule, meta, family, support, steps, generator("start"))

    for k in range(steps):
        found = theorem1.jacobian_norms(rule, meta, path, [k], generator("probes"))
        for task in range(N_TASKS):
            jacobian = full_jacobian(rule, meta, path, k, task)
            # zᵀJJᵀz has mean ‖J‖²_F and variance 2‖JJᵀ‖²_F; five deviations of the mean of the
            # probes miss once in a million, and here the seed is fixed.
            square = jacobian.square().sum()
            spread = (2 / probes) ** 0.5 * (jacobian @ jacobian.T).norm()
            assert abs(found[task] ** 2 - square) < 5 * spread
            assert 5 * spread < 0.7 * square  # so that a wrong factor of 2 would be seen


def full_jacobian(
    rule: Learner, meta: Params, path: theorem1.Trajectory, k: int, task: int
) -> Tensor:
    """∂θ⁽ᵏ⁺¹⁾/∂φ with constant inputs, (P, |φ|), one row after the other."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in meta.items()}
    tuner = rule.tuner(leaves)
    params = {name: leaf[task : task + 1] for name, leaf in path.start.params.items()}
    state = tuner.start(params)
    for inputs in path.inputs[: k + 1]:
        one = {name: leaf[task : task + 1] for name, leaf in inputs.items()}
        state, params = tuner.step(state, params, one)

    def row(entry: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(entry, list(leaves.values()), retain_graph=True)

    return torch.stack(
        [torch.cat([leaf.flatten() for leaf in row(entry)]) for entry in vector(params)]
    )


def test_split_divides_every_class() -> None:
    family = theorem1.resized(classification(), 2, 6)
    tasks = family.sample(3, generator("tasks"), "train")
    parts = theorem1.split(family, tasks.query, [1, 2, 3])
    assert [part.x.shape[:2] for part in parts] == [(3, 2), (3, 4), (3, 6)]
    for part, size in zip(parts, (1, 2, 3), strict=True):
        for labels, whole in zip(part.y, tasks.query.y, strict=True):
            assert labels.tolist() == [int(c) for c in whole[::6] for _ in range(size)]
    for task in range(3):
        # Every image once, with its label; and none of the support set.
        found = [pair for part in parts for pair in examples_of(part, task)]
        assert sorted(found) == sorted(examples_of(tasks.query, task))
        assert len(set(found + examples_of(tasks.support, task))) == 2 * (6 + 2)


def examples_of(batch: Batch, task: int) -> list[tuple[tuple[float, ...], int]]:
    """Pixels and label of every example of a task."""
    pairs = zip(batch.x[task].flatten(1).tolist(), batch.y[task].tolist(), strict=True)
    return [(tuple(pixels), label) for pixels, label in pairs]


def test_resized_leaves_the_family_as_it_was_and_refuses_too_few_images() -> None:
    family = classification()
    sized = theorem1.resized(family, 4, 20)
    assert (family.settings.support, sized.settings.support, sized.settings.query) == (1, 4, 20)
    assert sized.sample(1, generator("tasks"), "train").query.size == 2 * 20
    # 30 images of a class, of which a fifth is for meta-validation.
    with pytest.raises(UsageError, match="24 usable images for meta-train, but a task needs 25"):
        theorem1.resized(family, 5, 20)


def test_sizes_count_all_examples_of_a_task() -> None:
    assert theorem1.examples(sine(), 5) == 5
    assert theorem1.examples(classification(), 5) == 2 * 5
