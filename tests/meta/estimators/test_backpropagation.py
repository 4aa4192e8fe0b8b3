"""Meta-gradients against closed forms, plain autograd and finite differences, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import Elementwise, LeastSquares
from tiny import experiment_settings
from torch import Generator, Tensor

from lft.kernels import build as native
from lft.meta.adapt import Point, adapt
from lft.meta.estimators import meta_gradient
from lft.meta.learner import Learner
from lft.methods import METHODS
from lft.seeding import generator
from lft.tasks.base import TaskFamily
from lft.types import Batch, Params, TaskBatch

Array = np.ndarray[Any, np.dtype[np.float64]]

pytestmark = pytest.mark.usefixtures("float64")


def learner(method: str, order: Any = "first", **changes: Any) -> Learner:
    """A learner of the sine experiment's settings; ``maml_steps`` or keys of ``training``."""
    return Learner(METHODS[method], experiment_settings("sine", **changes), order, "torch")


def problem(
    rule: Learner, family: TaskFamily, n_tasks: int = 3
) -> tuple[Params, TaskBatch, Callable[[], Generator]]:
    """Meta-parameters, tasks, and a generator that starts afresh at every call."""
    meta = rule.initial(family, generator("meta"))
    if rule.method.learns_finetuner:
        # Away from the initial output layer, a tenth of the others, and its zero bias.
        meta["lstm/out.w"] = meta["lstm/out.w"] * 10
        meta["lstm/out.b"] = torch.tensor(0.2)
    return meta, family.sample(n_tasks, generator("tasks"), "train"), lambda: generator("run")


def close(one: Params, other: Params, tolerance: float) -> None:
    """Equal relative to the size of the whole meta-gradient."""
    size = max(float(leaf.abs().max()) for leaf in other.values())
    assert one.keys() == other.keys()
    for name, leaf in other.items():
        torch.testing.assert_close(one[name], leaf, rtol=0.0, atol=tolerance * size)


# ---------------------------------------------------------------- MAML, FOMAML and Reptile


def numpy_tasks(tasks: TaskBatch, part: str) -> list[tuple[Array, Array]]:
    """A and b of each least-squares task: its gradient is Aθ − b."""
    batch: Batch = getattr(tasks, part)
    return [
        (x.T @ x / len(x), x.T @ y / len(x))
        for x, y in zip(batch.x.numpy(), batch.y.numpy(), strict=True)
    ]


def fine_tuned(theta: Array, a: Array, b: Array, alpha: float, steps: int) -> Array:
    """θ⁽ᴷ⁾ = Mᴷ θ + (1 + M + … + Mᴷ⁻¹) α b with M = 1 − αA, in closed form."""
    m = np.eye(len(a)) - alpha * a
    series = sum(np.linalg.matrix_power(m, k) for k in range(steps))
    result: Array = np.linalg.matrix_power(m, steps) @ theta + series @ (alpha * b)
    return result


def closed_form(method: str, theta: Array, tasks: TaskBatch, alpha: float, steps: int) -> Array:
    """Meta-gradient of θ⁽⁰⁾ on least-squares tasks (eq. 1), averaged over tasks."""
    total = np.zeros_like(theta)
    inner, outer = numpy_tasks(tasks, "support"), numpy_tasks(tasks, "query")
    for (a, b), (a_query, b_query) in zip(inner, outer, strict=True):
        end = fine_tuned(theta, a, b, alpha, steps)
        at_end = a_query @ end - b_query
        jacobian = np.linalg.matrix_power(np.eye(len(a)) - alpha * a, steps)
        total += {"maml": jacobian.T @ at_end, "fomaml": at_end, "reptile": theta - end}[method]
    return total / len(inner)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("sizes", [(4, 4), (3, 6)])
@pytest.mark.parametrize("method", ["maml", "fomaml", "reptile"])
def test_initialisation_methods_match_closed_forms(
    method: str, sizes: tuple[int, int], steps: int
) -> None:
    rule = learner(method, maml_steps=steps, step_size=0.3)
    family = LeastSquares(*sizes)
    meta, tasks, random = problem(rule, family)
    segment = meta_gradient(rule, meta, family, tasks, None, random())
    theta = family.vector({k.removeprefix("init/"): v[None] for k, v in meta.items()})[0].numpy()
    result = family.vector({k.removeprefix("init/"): v[None] for k, v in segment.grads.items()})[0]
    # float64: a few dozen roundings of numbers of size one to ten.
    np.testing.assert_allclose(
        result, closed_form(method, theta, tasks, 0.3, steps), rtol=1e-10, atol=1e-12
    )
    ends = [fine_tuned(theta, a, b, 0.3, steps) for a, b in numpy_tasks(tasks, "support")]
    np.testing.assert_allclose(family.vector(segment.end.at.params), ends, rtol=1e-10)
    losses = [
        np.mean((x @ end - y) ** 2) / 2
        for x, y, end in zip(tasks.query.x.numpy(), tasks.query.y.numpy(), ends, strict=True)
    ]
    assert float(segment.loss) == pytest.approx(np.mean(losses), rel=1e-10)


def test_every_inner_step_is_differentiated_where_it_was_made() -> None:
    """Hessians that vary: f = c Σ θ³, whose dθ⁽ᴷ⁾/dθ⁽⁰⁾ is Π (1 − α 6c θ⁽ᵏ⁾), by hand.

    The mistakes that this would catch, differentiating the second step (its gradient, or its
    Hessian) at the initial weights, are computed as well, to show that they give other numbers.
    """
    alpha, steps = 0.05, 2
    rule = learner("maml", maml_steps=steps, step_size=alpha)
    family = Elementwise(lambda theta: theta**3)
    meta, tasks, random = problem(rule, family, n_tasks=2)
    result = meta_gradient(rule, meta, family, tasks, None, random()).grads["init/theta"]
    theta = meta["init/theta"].numpy()
    right, stale_gradient, stale_hessian = [], [], []
    for y, y_query in zip(tasks.support.y.numpy(), tasks.query.y.numpy(), strict=True):
        c, c_query = y.mean(), y_query.mean()
        first = theta - alpha * 3 * c * theta**2
        second = first - alpha * 3 * c * first**2
        slopes = (1 - alpha * 6 * c * theta), (1 - alpha * 6 * c * first)
        right.append(slopes[0] * slopes[1] * 3 * c_query * second**2)
        stale_hessian.append(slopes[0] ** 2 * 3 * c_query * second**2)
        stale = theta - 2 * alpha * 3 * c * theta**2
        stale_gradient.append((1 - 2 * alpha * 6 * c * theta) * 3 * c_query * stale**2)
    # float64, a dozen operations.
    np.testing.assert_allclose(result, np.mean(right, axis=0), rtol=1e-12)
    for wrong in (stale_gradient, stale_hessian):
        assert (np.abs(np.mean(wrong, axis=0) / np.mean(right, axis=0) - 1) > 1e-3).all()


# ---------------------------------------------------------------- fine-tuners


def unrolled(
    rule: Learner,
    meta: Params,
    family: TaskFamily,
    tasks: TaskBatch,
    random: Generator,
    *,
    segments: int,
    detach_inputs: bool,
) -> list[tuple[Tensor, Params]]:
    """Outer loss and its gradient, segment by segment: a plain unrolled loop and autograd."""
    support, query = tasks.joined() if rule.method.outer == "joint" else tasks
    steps = rule.plan.steps
    raw = {"uniform": np.ones(steps), "linear": 1 + np.arange(steps), "final": np.eye(steps)[-1]}
    # Eq. 4 with weights that sum to 1 is the mean over segments.
    weights = segments * (w := raw[rule.experiment.training.step_weights]) / w.sum()
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in meta.items()}
    tuner = rule.tuner(leaves)
    params = rule.start(leaves, family, len(support.x), random)
    state, results = tuner.start(params), []
    gradient = rule.gradient(random, create_graph=True)
    for segment in range(segments):
        if segment:
            params = {name: leaf.detach() for name, leaf in params.items()}
            state = state.detach()
        loss = torch.stack([0 * leaf.sum() for leaf in leaves.values()]).sum()
        for weight in weights[segment * rule.plan.segment : (segment + 1) * rule.plan.segment]:
            grads = gradient(family, params, support)
            if detach_inputs:
                grads = {name: leaf.detach() for name, leaf in grads.items()}
            state, params = tuner.step(state, params, grads)
            loss = loss + float(weight) * family.loss(params, query).mean()
        of_leaves = torch.autograd.grad(
            loss, list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        results.append((loss.detach(), dict(zip(leaves, of_leaves, strict=True))))
    return results


PATHS = {
    "stacked pair of equal sizes": ("lft", "first", (4, 4)),
    "unequal sizes": ("lft", "first", (3, 5)),
    "same data": ("l2o", "first", (4, 4)),
    "zeroth order": ("lft", "zeroth", (4, 4)),
    "zeroth order, same data": ("l2o", "zeroth", (3, 5)),
    "learned initialisation": ("lft-init", "first", (4, 4)),
}


@pytest.mark.parametrize("estimator", ["exact", "dropped"])
@pytest.mark.parametrize("weights", ["uniform", "linear", "final"])
@pytest.mark.parametrize("path", sorted(PATHS))
def test_truncated_segments_match_plain_autograd(path: str, weights: str, estimator: str) -> None:
    method, order, sizes = PATHS[path]
    rule = learner(method, order, steps=6, segment=3, step_weights=weights, estimator=estimator)
    family = LeastSquares(*sizes)
    meta, tasks, random = problem(rule, family)
    expected = unrolled(
        rule, meta, family, tasks, random(), segments=2, detach_inputs=estimator == "dropped"
    )
    together, point = random(), None
    for loss, grads in expected:
        segment = meta_gradient(rule, meta, family, tasks, point, together)
        point = segment.end
        # float64: the same derivative through another graph.
        assert float(segment.loss) == pytest.approx(float(loss), rel=1e-11)
        close(segment.grads, grads, 1e-10)


@pytest.mark.parametrize("path", sorted(PATHS))
def test_exact_matches_finite_differences(path: str) -> None:
    method, order, sizes = PATHS[path]
    rule = learner(method, order, steps=4, segment=4, estimator="exact")
    family = LeastSquares(*sizes)
    meta, tasks, random = problem(rule, family)
    grads = meta_gradient(rule, meta, family, tasks, None, random()).grads
    direction = {
        name: torch.randn(leaf.shape, generator=generator("direction", name))
        for name, leaf in meta.items()
    }

    def outer_loss(h: float) -> float:
        moved = {name: leaf + h * direction[name] for name, leaf in meta.items()}
        return float(meta_gradient(rule, moved, family, tasks, None, random()).loss)

    slope = sum(float((grads[name] * direction[name]).sum()) for name in meta)
    # Fourth-order central difference: rounding of the loss, 1e-16 / h, is 1e-8 of the slope, and
    # log|g| near a zero of g makes fifth derivatives large, so 1e-6 is claimed.
    h = 3e-5
    difference = (
        8 * (outer_loss(h) - outer_loss(-h)) - (outer_loss(2 * h) - outer_loss(-2 * h))
    ) / (12 * h)
    assert slope == pytest.approx(difference, rel=1e-6)


def test_dropping_second_order_terms_matters() -> None:
    """The two modes are told apart by every test above."""
    family = LeastSquares()
    grads = []
    for estimator in ("exact", "dropped"):
        rule = learner("lft", steps=4, segment=4, estimator=estimator)
        meta, tasks, random = problem(rule, family)
        grads.append(meta_gradient(rule, meta, family, tasks, None, random()).grads)
    one, other = (torch.cat([leaf.flatten() for leaf in g.values()]) for g in grads)
    assert (one - other).norm() > 1e-3 * one.norm()


def test_fused_and_plain_paths_agree_in_float32() -> None:
    torch.set_default_dtype(torch.float32)
    if not native.available(torch.device("cpu"), torch.float32):
        pytest.skip("no compiler")
    family = LeastSquares()
    results = []
    for kernel in ("fused", "torch"):
        experiment = experiment_settings("sine", steps=5, segment=5, estimator="dropped")
        rule = Learner(METHODS["lft"], experiment, "first", kernel)
        meta, tasks, random = problem(rule, family)
        results.append(meta_gradient(rule, meta, family, tasks, None, random()))
    # float32: the kernel's exp and tanh are good to 3e-7, and errors add up over five steps.
    assert float(results[0].loss) == pytest.approx(float(results[1].loss), rel=1e-4)
    close(results[0].grads, results[1].grads, 1e-3)


def test_a_segment_ends_where_the_inner_loop_does() -> None:
    for estimator in ("exact", "dropped"):
        rule = learner("lft", steps=5, segment=5, estimator=estimator)
        family = LeastSquares()
        meta, tasks, random = problem(rule, family)
        end = meta_gradient(rule, meta, family, tasks, None, random()).end.at
        start = rule.start(meta, family, 3, random())
        *_, point = adapt(
            family,
            rule.tuner(meta),
            start,
            tasks.support,
            steps=5,
            gradient=rule.gradient(random()),
        )
        assert isinstance(end, Point)
        assert not any(leaf.requires_grad for leaf in end.params.values())
        assert not end.state.requires_grad
        # float64; two networks' passes may be batched together.
        torch.testing.assert_close(end.state, point.state, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(
            family.vector(end.params), family.vector(point.params), rtol=1e-11, atol=1e-12
        )


@pytest.mark.parametrize("method", ["lft", "l2o", "l2o-support", "l2o-union"])
def test_each_reading_of_l2o_has_its_own_data(method: str) -> None:
    """The meta-gradient is LFT's on tasks whose support and query sets are what the method sees."""
    family = LeastSquares(3, 4)
    rule, plain = (learner(name, steps=2, segment=2) for name in (method, "lft"))
    meta, tasks, random = problem(rule, family)
    both = Batch(*(torch.cat(pair, 1) for pair in zip(*tasks, strict=True)))
    inner, outer = {
        "lft": (tasks.support, tasks.query),
        "l2o": (both, both),
        "l2o-support": (tasks.support, tasks.support),
        "l2o-union": (tasks.support, both),
    }[method]
    found = meta_gradient(rule, meta, family, tasks, None, random())
    expected = meta_gradient(plain, meta, family, TaskBatch(inner, outer), None, random())
    # float64; where both sets are the same, their gradients come from one pass instead of two.
    close(found.grads, expected.grads, 1e-12)
    assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-12)
