"""Evolution strategies, PES and mixtures: against exact derivatives, and their bias and variance.

The statistical tests compare moments of thousands of antithetic pairs with what quadrature says
they should be, at 4.9 standard errors: a correct estimator fails one of them in a million draws,
and the draws are the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import LearnedRateSettings, LeastSquares
from numpy.polynomial.hermite_e import hermegauss
from tiny import experiment_settings
from torch import Generator

from lft.config import FINETUNERS
from lft.kernels import build as native
from lft.meta.estimators.base import Progress
from lft.meta.estimators.dropped import Dropped
from lft.meta.estimators.evolution import (
    Evolution,
    begin_pair,
    contributions,
    perturbations,
    run_pair,
)
from lft.meta.estimators.exact import Exact, begun
from lft.meta.estimators.mixed import Mixed, combined
from lft.meta.estimators.pes import PersistentEvolution
from lft.meta.learner import Learner
from lft.methods import METHODS, Method
from lft.seeding import generator
from lft.types import Batch, Params, TaskBatch

Array = np.ndarray[Any, np.dtype[np.float64]]

pytestmark = pytest.mark.usefixtures("float64")

SIGMA, PAIRS, TASKS, LIMIT = 0.05, 700, 3, 4.9
NODES, SHARES = hermegauss(24)
SHARES = SHARES / SHARES.sum()  # exact for polynomials up to degree 47
RATE = Method("rate", "Learned rate", "#000000", "finetuner", "rate")


@pytest.fixture(autouse=True)
def learned_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FINETUNERS, "rate", LearnedRateSettings)


def learner(method: str, order: Any = "first", **training: Any) -> Learner:
    settings = experiment_settings("sine", **training)
    return Learner(RATE if method == "rate" else METHODS[method], settings, order, "torch")


def one(tasks: TaskBatch, index: int) -> TaskBatch:
    return TaskBatch(*(Batch(*(leaf[index : index + 1] for leaf in part)) for part in tasks))


# ---------------------------------------------------------------- without chance


@pytest.mark.parametrize("weights", ["uniform", "linear", "final"])
def test_small_perturbations_give_directional_derivatives(weights: str) -> None:
    """(F_i(φ + ε) − F_i(φ − ε)) ε / (2σ²) → (ε · ∇F_i) ε / σ², ∇F_i being back-propagated."""
    sigma = 1e-5
    rule = learner(
        "lft-init",
        steps=4,
        segment=4,
        step_weights=weights,
        evolution={"pairs": 2, "sigma": sigma},
    )
    family = LeastSquares(4, 3)
    meta, tasks = rule.initial(family, generator("meta")), family.sample(2, generator("tasks"))
    found = Evolution()(rule, meta, family, tasks, None, generator("run")).grads
    noise = perturbations(rule, meta, 4, generator("run"))
    expected = {name: torch.zeros_like(leaf) for name, leaf in meta.items()}
    for i in range(4):
        grads = Exact()(rule, meta, family, one(tasks, i // 2), None, generator("run")).grads
        slope = sum((noise[name][i] * grads[name]).sum() for name in meta)
        for name in meta:
            expected[name] += slope * noise[name][i] / (4 * sigma**2)
    size = max(float(leaf.abs().max()) for leaf in expected.values())
    for name, leaf in expected.items():
        # Third derivatives times σ², and the loss's rounding of 1e-16 over σ.
        torch.testing.assert_close(found[name], leaf, rtol=0, atol=1e-6 * size)


@pytest.mark.parametrize("order", ["first", "zeroth"])
@pytest.mark.parametrize("method", ["lft", "l2o", "lft-init"])
def test_both_trajectories_of_a_pair_meet_the_same_chance(method: str, order: str) -> None:
    """Starts and zeroth-order directions: with tiny perturbations nothing else differs."""
    rule = learner(method, order, steps=4, segment=4, evolution={"pairs": 2, "sigma": 1e-9})
    family = LeastSquares(4, 3)
    meta, random = rule.initial(family, generator("meta")), generator("run")
    tasks = rule.data(family.sample(2, generator("tasks")))
    noise = perturbations(rule, meta, 4, random)
    start = begin_pair(rule, meta, noise, family, random)
    losses, _ = run_pair(rule, meta, noise, family, tasks, 0, start, random)
    # Derivatives of size 1 to 100 times σ.
    torch.testing.assert_close(losses.plus, losses.minus, rtol=1e-5, atol=0)
    kinds = 2 if method == "lft-init" and order == "first" else 4  # one start, nothing else drawn
    assert len(losses.plus.round(decimals=5).unique()) == kinds


def test_a_start_state_survives_the_run() -> None:
    """The native kernel steps in place; what a segment starts from is used again."""
    torch.set_default_dtype(torch.float32)
    if not native.available(torch.device("cpu"), torch.float32):
        pytest.skip("no compiler")
    plain = learner("lft", steps=4, segment=2, evolution={"pairs": 1, "sigma": 0.1})
    rule = replace(plain, kernel="fused")
    family = LeastSquares()
    meta, random = rule.initial(family, generator("meta")), generator("run")
    tasks, noise = family.sample(2, generator("tasks")), perturbations(rule, meta, 2, random)
    start = begin_pair(rule, meta, noise, family, random)
    runs = [
        run_pair(rule, meta, noise, family, tasks, 0, start, random.clone_state()) for _ in "ab"
    ]
    assert torch.equal(runs[0][0].plus, runs[1][0].plus)
    assert all(not state.any() for state in start.plus.state)


# ---------------------------------------------------------------- bias and variance


class Fixed(LeastSquares):
    """Least squares from one start, so that the outer loss depends on the rate alone."""

    def init(self, n_tasks: int, generator: Generator) -> Params:
        return self.params(torch.ones(n_tasks, 3))


def outer_losses(tasks: TaskBatch, rates: list[Array], w: list[float]) -> Array:
    """Σ_k w_k f(θ⁽ᵏ⁾; query) of each task (B, …) for step sizes that vary from step to step.

    In numpy, by the recursion θ ← θ − r (Aθ − b), for any shape of the rates.
    """
    results = []
    for x, y, x_query, y_query in zip(
        *(leaf.numpy() for part in tasks for leaf in part), strict=True
    ):
        a, b = x.T @ x / len(x), x.T @ y / len(x)
        theta = np.ones((*rates[0].shape, 3))
        total = np.zeros(rates[0].shape)
        for rate, weight in zip(rates, w, strict=True):
            theta = theta - rate[..., None] * (theta @ a - b)
            total += weight * np.mean((theta @ x_query.T - y_query) ** 2, axis=-1) / 2
        results.append(total)
    return np.stack(results)


def moments(values: Array, shares: Array) -> tuple[float, float, float, float]:
    """Mean and second moment over tasks and perturbations, each with the standard error of an
    average over PAIRS perturbations of every task."""
    axes = tuple(range(1, values.ndim))
    powers = [np.sum(shares * values**n, axis=axes) for n in (1, 2, 4)]
    n = PAIRS * len(values)
    of_mean = np.mean(powers[1] - powers[0] ** 2) / n
    of_square = np.mean(powers[2] - powers[1] ** 2) / n
    return powers[0].mean(), of_mean**0.5, powers[1].mean(), of_square**0.5


def setting(estimator: str, segment: int, weights: str) -> tuple[Learner, Params, Fixed, TaskBatch]:
    rule = learner(
        "rate",
        steps=4,
        segment=segment,
        step_weights=weights,
        estimator=estimator,
        evolution={"pairs": PAIRS, "sigma": SIGMA},
    )
    family = Fixed()
    return rule, {"rate/rate": torch.tensor(0.3)}, family, family.sample(TASKS, generator("t"))


W = [0.1, 0.2, 0.3, 0.4]  # w_k = k, scaled to sum to 1


def test_evolution_strategies_have_the_mean_and_the_variance_of_a_smoothed_derivative() -> None:
    rule, meta, family, tasks = setting("evolution", 4, "linear")
    random = generator("run")
    noise = perturbations(rule, meta, TASKS * PAIRS, random)
    start = begin_pair(rule, meta, noise, family, random)
    losses, _ = run_pair(rule, meta, noise, family, tasks, 0, start, random)
    found = contributions(losses, noise, SIGMA)["rate/rate"].numpy()
    plus, minus = (outer_losses(tasks, [0.3 + sign * SIGMA * NODES] * 4, W) for sign in (1, -1))
    mean, of_mean, square, of_square = moments((plus - minus) * NODES / (2 * SIGMA), SHARES)
    assert abs(found.mean() - mean) < LIMIT * of_mean
    assert abs((found**2).mean() - square) < LIMIT * of_square
    # That mean is the derivative of the smoothed loss, here by a central difference of it.
    h = 1e-5
    up, down = (
        (SHARES * outer_losses(tasks, [0.3 + d + SIGMA * NODES] * 4, W)).sum(1).mean()
        for d in (h, -h)
    )
    assert mean == pytest.approx((up - down) / (2 * h), rel=1e-6)  # h² and 1e-16 / h
    estimate = Evolution()(rule, meta, family, tasks, None, generator("run"))
    assert float(estimate.grads["rate/rate"]) == pytest.approx(found.mean(), rel=1e-12)
    assert estimate.end.step == 4


def test_pes_is_unbiased_over_the_whole_trajectory_and_truncation_is_not() -> None:
    rule, meta, family, tasks = setting("pes", 2, "final")
    first, second = np.meshgrid(NODES, NODES, indexing="ij")
    shares = np.outer(SHARES, SHARES)

    def losses(sign: int, w: list[float]) -> Array:
        rates = [0.3 + sign * SIGMA * z for z in (first, first, second, second)]
        return outer_losses(tasks, rates, w)

    random, progress, total, error, expected = generator("run"), None, 0.0, 0.0, 0.0
    # Two segments: their mean is the sum over the trajectory, so w_K counts twice.
    for w, accumulated in (([0.0] * 4, first), ([0.0, 0, 0, 2], first + second)):
        values = (losses(1, w) - losses(-1, w)) * accumulated / (2 * SIGMA)
        mean, of_mean, _, _ = moments(values, shares)
        estimate = PersistentEvolution()(rule, meta, family, tasks, progress, random)
        progress = estimate.end
        found = float(estimate.grads["rate/rate"])
        assert abs(found - mean) <= LIMIT * of_mean
        total, error, expected = total + found / 2, error + of_mean / 2, expected + mean / 2
    h = 1e-5
    up, down = (
        (
            shares
            * outer_losses(
                tasks, [0.3 + d + SIGMA * z for z in (first, first, second, second)], [0, 0, 0, 1]
            )
        ).sum((1, 2)).mean()
        for d in (h, -h)
    )  # fmt: skip
    assert expected == pytest.approx((up - down) / (2 * h), rel=1e-6)
    # The last segment on its own, its start being constant, gives another number.
    truncated = truncation(tasks)
    assert abs(truncated - expected) > 2 * LIMIT * error
    assert abs(total - truncated) > LIMIT * error


def truncation(tasks: TaskBatch) -> float:
    """Derivative of the last step's loss with the start of the last segment constant."""
    h, still = 1e-5, np.array(0.3)
    up, down = (
        outer_losses(tasks, [still, still, still + d, still + d], [0, 0, 0, 1]).mean()
        for d in (h, -h)
    )
    return float((up - down) / (2 * h))


# ---------------------------------------------------------------- mixtures


def test_a_mixture_weighs_by_inverse_variance() -> None:
    """By hand: variances of the means 1/2 · 2 = 1 and 1/2 · (8 + 0) = 4, so 4/5 to 1/5."""
    smooth = {"a": torch.tensor([[0.0, 1.0], [2.0, 1.0]])}
    rough = {"a": torch.tensor([[8.0, 3.0], [12.0, 3.0]])}
    torch.testing.assert_close(combined(smooth, rough)["a"], torch.tensor([2.8, 1.4]))
    torch.testing.assert_close(combined(rough, smooth)["a"], torch.tensor([2.8, 1.4]))


def test_a_mixture_leaves_out_what_is_not_finite_or_exact() -> None:
    sure = {"a": torch.tensor([[1.0], [1.0]])}
    broken = {"a": torch.tensor([[float("inf")], [1.0]])}
    rough = {"a": torch.tensor([[0.0], [4.0]])}
    assert combined(broken, rough)["a"].tolist() == [2]
    assert combined(rough, broken)["a"].tolist() == [2]
    assert combined(sure, rough)["a"].tolist() == [1]
    assert combined(sure, sure)["a"].tolist() == [1]


@pytest.mark.parametrize("method", ["lft", "l2o"])
def test_a_mixture_lies_between_its_two_estimates(method: str) -> None:
    rule = learner(method, steps=4, segment=2, evolution={"pairs": 3, "sigma": 0.01})
    family = LeastSquares()
    meta = rule.initial(family, generator("meta"))
    tasks = rule.data(family.sample(3, generator("tasks")))
    estimate = Mixed(Dropped())(rule, meta, family, tasks, None, generator("run"))
    following = Mixed(Dropped())(rule, meta, family, tasks, estimate.end, generator("next"))
    assert following.end.step == 4

    random = generator("run")
    starts = [begun(rule, meta, family, one(tasks, i), random).at for i in range(3)]
    each = [
        Dropped()(rule, meta, family, one(tasks, i), Progress(0, start), random)
        for i, start in enumerate(starts)
    ]
    backprop = torch.stack([flat(e.grads) for e in each]).mean(0)
    mixed = flat(estimate.grads)
    noise = perturbations(rule, meta, 9, random)
    # The other estimate lies in the span of its nine perturbations, so the mixture minus the right
    # share of back-propagation does.
    span = torch.stack([flat({n: leaf[i] for n, leaf in noise.items()}) for i in range(9)])
    basis = torch.linalg.qr(span.T).Q
    off = [vector - basis @ (basis.T @ vector) for vector in (mixed, backprop)]
    share = float(off[0] @ off[1] / (off[1] @ off[1]))
    assert 0 < share < 1
    # float64, through a projection.
    torch.testing.assert_close(off[0], share * off[1], rtol=1e-8, atol=1e-10)
    assert float(estimate.loss) == pytest.approx(float(torch.stack([e.loss for e in each]).mean()))


def flat(params: Params) -> torch.Tensor:
    return torch.cat([leaf.flatten() for leaf in params.values()])


# ---------------------------------------------------------------- what a learner chooses


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [(4, "query")] * 6),
        ({"curriculum": (2, 4)}, [(2, "query")] * 3 + [(4, "query")] * 3),
        ({"warm_start": 2}, [(4, "joint")] * 2 + [(4, "query")] * 4),
        (
            {"warm_start": 2, "curriculum": (2, 4)},
            [(4, "joint")] * 2 + [(2, "query")] * 2 + [(4, "query")] * 2,
        ),
    ],
)
def test_meta_batches_follow_curriculum_and_warm_start(
    changes: dict[str, Any], expected: list[tuple[int, str]]
) -> None:
    rule = learner("lft", **changes)
    seen = [rule.at(batch) for batch in range(rule.meta_batches)]
    assert [(each.plan.steps, each.method.outer) for each in seen] == expected
    assert learner("maml", **changes).at(0).plan == learner("maml").plan


def test_a_warm_start_is_l2o_whatever_comes_after() -> None:
    rule = learner("lft", warm_start=2, estimator="evolution", step_weights="final")
    plans = [rule.at(batch).plan for batch in (1, 2)]
    assert [(plan.estimator, plan.segment) for plan in plans] == [("dropped", 2), ("evolution", 4)]
    assert rule.at(1).experiment.training.step_weights == "uniform"
    for method, outer in (("lft", "joint"), ("l2o-support", "support"), ("l2o-union", "union")):
        assert learner(method, warm_start=2).at(0).method.outer == outer


def test_evolution_looks_at_whole_trajectories() -> None:
    rule = learner("lft", steps=6, segment=4, estimator="evolution", curriculum=(3, 6))
    assert [rule.at(batch).plan.segment for batch in (0, 5)] == [3, 6]


def test_the_cap_bounds_what_one_task_adds() -> None:
    """Dropped terms, a single step: the capped loss's gradient is the loss's times min(1, c/f)."""
    family: Callable[[], LeastSquares] = LeastSquares
    grads = []
    for cap in (None, 0.05):
        rule = learner("lft", steps=1, segment=1, task_clip=cap)
        meta = rule.initial(family(), generator("meta"))
        per_task = [
            Dropped()(rule, meta, family(), one(batch, i), None, generator("run"))
            for batch in [family().sample(3, generator("tasks"))]
            for i in range(3)
        ]
        grads.append([(float(e.loss), flat(e.grads)) for e in per_task])
        together = Exact()(
            rule, meta, family(), family().sample(3, generator("tasks")), None, generator("run")
        )
        assert torch.isfinite(flat(together.grads)).all()
    for (loss, plain), (capped_loss, clipped) in zip(*grads, strict=True):
        factor = min(1.0, 0.05 / loss)
        assert factor < 1
        torch.testing.assert_close(clipped, factor * plain, rtol=1e-10, atol=0)
        assert capped_loss == pytest.approx(0.05 * (1 + np.log(loss / 0.05)), rel=1e-12)
