"""Theorem 1: the gap between the meta-gradients of LFT and L2O, its parts and its bound.

For one task, a trajectory θ⁽¹⁾ … θ⁽ᴷ⁾ fine-tuned on D_tr, and any data X, let
∇_φ(X) = Σ_k w_k G_kᵀ ∇f(θ⁽ᵏ⁾; X). LFT's meta-gradient is ∇_φ(D_val), L2O's is ∇_φ(D_tr), and
the gap is d = ∇_φ(D_val) − ∇_φ(D_tr). Each task is drawn several times, with independent data and
one start, which tells two parts of it apart:

- variance part: ‖∇_φ(D_val) − ∇_φ(D_new)‖, where D_new is D_tr of another draw. θ⁽ᵏ⁾ was not fitted
  on it, so this is the gap that Theorem 1 speaks of, under assumption A1.
- fitting part: ‖E d‖ over the draws. It is 0 if θ⁽ᵏ⁾ and G_k do not depend on D_tr, and is there
  because they do. For two draws E⟨d, d'⟩ = ‖E d‖², which estimates its square without bias.

Assumption A1 itself is looked at by products of gradients: ⟨∇f(θ⁽ᵏ⁾; X), ∇f(θ⁽ᵏ⁾; D_val)⟩ is on
average ‖∇f(θ⁽ᵏ⁾)‖² for X = D_new, and for X = D_tr as well where A1 holds.

Second-order terms are dropped throughout. Tasks, starts and data are the same for every size, K
and stage of meta-training, and smaller sets are parts of larger ones, so that differences between
points are not those between tasks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from lft.config import GapSettings, Profile
from lft.meta.adapt import Point, adapt
from lft.meta.estimators.base import step_weights
from lft.meta.estimators.dropped import inputs_to_meta
from lft.meta.gradients import FirstOrder, value_and_grad
from lft.meta.learner import Learner
from lft.seeding import generator
from lft.storage.tensors import below, load_tensors
from lft.tasks.attack import Attack
from lft.tasks.base import Objective, TaskFamily
from lft.tasks.build import build_families
from lft.tasks.classification import Classification
from lft.tasks.sine import Sine
from lft.types import Batch, Params, flatten

SIGMA_EXAMPLES = 4
"""Examples (per class, at most) from which the variance of per-example gradients is estimated."""

POWER_ITERATIONS = 2
"""The largest singular value of ∂θ⁽ᵏ⁾/∂φ stands out: two iterations find it to 0.1 %."""

SHIFT = 1e-3
"""Relative change of φ in central differences."""


class Case(NamedTuple):
    """One point of the measurement: examples per class in D_tr and D_val, and K."""

    support: int
    query: int
    steps: int


class Draws(NamedTuple):
    """R draws of each of T tasks, one after the other within a task: B = T · R.

    ``support`` and ``query`` are the largest sets; ``start`` is θ⁽⁰⁾, the same for all draws of a
    task.
    """

    support: Batch
    query: Batch
    start: Params


class Trajectory(NamedTuple):
    """Fine-tuning of B tasks.

    Attributes:
        points: θ⁽¹⁾ … θ⁽ᴷ⁾.
        gradients: (K + 1, B, P), ∇f(·; D_tr) at θ⁽⁰⁾ … θ⁽ᴷ⁾, all P coordinates in one vector.
    """

    points: list[Params]
    gradients: Tensor


def measure(profile: Profile, experiment: str, results: Path) -> Iterator[tuple[Any, ...]]:
    """Rows of THEORY_COLUMNS: |D_tr|, then |D_val|, then K varied, for φ at initialisation, halfway
    through meta-training and trained, one value per task. What is not finite is left out.

    Tasks come from the meta-training images, since the theorem is about meta-training.

    Raises:
        UsageError: weights are missing or damaged, or a class has too few images.
    """
    settings = profile.theory.gap
    name = profile.theory_families(experiment)[0]
    family = build_families(profile, profile.experiment(experiment), [name], results)[name]
    for run in profile.theory_runs(experiment):
        if run.method != "lft":
            continue
        learner = Learner.of(profile, run)
        flat, _ = load_tensors(results / run.folder / "weights.safetensors", profile.device)
        random = generator("theorem 1", experiment, run.seed)
        draws = sample_draws(family, settings, random)
        for stage in ("initial", "halfway", "best"):
            meta = below(stage, flat)
            for case, quantities in gaps(learner, meta, family, draws, settings, random):
                sizes = examples(family, case.support), examples(family, case.query)
                point = (run.seed, case.steps, *sizes)
                for quantity, values in quantities.items():
                    finite = ((i, v) for i, v in enumerate(values.tolist()) if math.isfinite(v))
                    for index, value in finite:
                        yield (experiment, stage, quantity, "lft", *point, f"{name}-{index}", value)


def cases(settings: GapSettings) -> list[Case]:
    """The points to measure: one of |D_tr|, |D_val| and K varies, the others being fixed."""
    fixed, longest = settings.fixed_size, max(settings.steps)
    varied = [Case(size, fixed, longest) for size in settings.sizes]
    varied += [Case(fixed, size, longest) for size in settings.sizes]
    varied += [Case(fixed, fixed, steps) for steps in settings.steps]
    return list(dict.fromkeys(varied))


def sample_draws(family: TaskFamily, settings: GapSettings, random: Generator) -> Draws:
    """Draw tasks, the data of each several times, and starts.

    Raises:
        UsageError: a class has too few images.
    """
    n_draws, n_classes = settings.draws, examples(family, 1)
    largest = max(*settings.sizes, settings.fixed_size)
    tasks = resized(family, n_draws * largest).sample(settings.tasks, random, "train")

    def divide(leaf: Tensor) -> Tensor:
        by_draw: Tensor = leaf.unflatten(1, (n_classes, n_draws, largest)).movedim(2, 1)
        return by_draw.flatten(2, 3).flatten(0, 1)

    support, query = (Batch(divide(batch.x), divide(batch.y)) for batch in tasks)
    start = family.init(settings.tasks, random)
    repeated = {name: leaf.repeat_interleave(n_draws, 0) for name, leaf in start.items()}
    return Draws(support, query, repeated)


def gaps(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    draws: Draws,
    settings: GapSettings,
    random: Generator,
) -> Iterator[tuple[Case, dict[str, Tensor]]]:
    """Every case with its quantities, one value per task, (T,).

    Those of :func:`compare`; ``sigma`` and ``jacobian``, the σ and G of the theorem: see
    :func:`sigma_of` and :func:`jacobian_norm`; ``bound``: the theorem's right-hand side.
    """
    n_draws, n_classes = settings.draws, examples(family, 1)
    kind = learner.experiment.training.step_weights
    wanted = cases(settings)
    for size in dict.fromkeys(case.support for case in wanted):
        of_size = [case for case in wanted if case.support == size]
        support = first(draws.support, n_classes, size)
        longest = max(case.steps for case in of_size)
        path = trajectory(learner, meta, family, draws.start, support, longest)
        on_tr = path.gradients[1:]
        on_new = gradients(family, path, other_draw(support, n_draws))
        queries = {case.query: first(draws.query, n_classes, case.query) for case in of_size}
        on_val = {size: gradients(family, path, query) for size, query in queries.items()}
        for steps in dict.fromkeys(case.steps for case in of_size):
            inputs, weights = path.gradients[:steps], step_weights(kind, steps)
            sigma = sigma_of(family, path, draws.query, steps, n_draws)
            jacobian = jacobian_norm(learner, meta, inputs, n_draws, random)
            for case in (case for case in of_size if case.steps == steps):
                sets = on_tr[:steps], on_new[:steps], on_val[case.query][:steps]
                quantities = compare(learner, meta, inputs, *sets, weights, n_draws)
                rate = support.size**-0.5 + queries[case.query].size ** -0.5
                bound = jacobian * sigma * sum(weights) * rate
                yield case, quantities | {"sigma": sigma, "jacobian": jacobian, "bound": bound}


def compare(
    learner: Learner,
    meta: Params,
    inputs: Tensor,
    on_tr: Tensor,
    on_new: Tensor,
    on_val: Tensor,
    weights: Sequence[float],
    n_draws: int,
) -> dict[str, Tensor]:
    """Quantities of :func:`parts` and :func:`products` from gradients at the same θ⁽¹⁾ … θ⁽ᴷ⁾.

    Args:
        inputs: (K, T · R, P), what the fine-tuner was fed.
        on_tr: (K, T · R, P), ∇f(θ⁽ᵏ⁾; D_tr); ``on_new`` and ``on_val`` likewise.
        weights: w_1 … w_K.
    """
    w = on_val.new_tensor(weights)[:, None, None]
    gap, variance = (
        meta_gradients(learner, meta, inputs, w * (on_val - other)) for other in (on_tr, on_new)
    )
    return parts(gap, variance, n_draws) | products(on_tr, on_new, w * on_val, n_draws)


def products(on_tr: Tensor, on_new: Tensor, on_val: Tensor, n_draws: int) -> dict[str, Tensor]:
    """Products of gradients with those on D_val, which come weighted, each (K, T · R, P).

    Returns:
        Means over the draws of each task, (T,): ``gradient_square`` of Σ_k w_k ⟨∇f(θ⁽ᵏ⁾; D_new),
        ∇f(θ⁽ᵏ⁾; D_val)⟩, ``gradient_kept`` of the same with D_tr.
    """
    by_draw = {
        "gradient_square": (on_new * on_val).sum((0, 2)),
        "gradient_kept": (on_tr * on_val).sum((0, 2)),
    }
    return {name: found.view(-1, n_draws).mean(1).cpu() for name, found in by_draw.items()}


def parts(gap: Tensor, variance: Tensor, n_draws: int) -> dict[str, Tensor]:
    """Norms from the vectors of every draw.

    Args:
        gap: d = ∇_φ(D_val) − ∇_φ(D_tr), (T · R, |φ|).
        variance: the same with another draw's D_tr, (T · R, |φ|).

    Returns:
        Means over the draws of each task, (T,): ``gap`` and ``variance_part`` of the norms, and
        ``fitting_square`` of ⟨d, d'⟩ over pairs of draws, which estimates ‖E d‖² without bias and
        may be negative.
    """
    by_task = gap.unflatten(0, (-1, n_draws))
    squares = by_task.square().sum(2)
    products = by_task.sum(1).square().sum(1) - squares.sum(1)
    return {
        "gap": squares.sqrt().mean(1),
        "variance_part": variance.unflatten(0, (-1, n_draws)).norm(dim=2).mean(1),
        "fitting_square": products / (n_draws * (n_draws - 1)),
    }


def trajectory(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    start: Params,
    support: Batch,
    steps: int,
) -> Trajectory:
    """Fine-tune B tasks from given starts, remembering gradients and points."""
    inner, inputs = FirstOrder(), []

    def gradient(family: Objective, params: Params, batch: Batch) -> Params:
        inputs.append(inner(family, params, batch))
        return inputs[-1]

    with torch.no_grad():
        path = adapt(family, learner.tuner(meta), start, support, steps=steps, gradient=gradient)
        points = [point.params for point in path]
    inputs.append(inner(family, points[-1], support))
    return Trajectory(points, torch.stack([_by_task(grads) for grads in inputs]))


def gradients(family: TaskFamily, path: Trajectory, batch: Batch) -> Tensor:
    """∇f(θ⁽ᵏ⁾; batch) for k = 1 … K, (K, B, P)."""
    return torch.stack([_by_task(value_and_grad(family, p, batch)[1]) for p in path.points])


def meta_gradients(learner: Learner, meta: Params, inputs: Tensor, cotangents: Tensor) -> Tensor:
    """Σ_k G_kᵀ c_k of each task, (B, |φ|).

    Args:
        inputs: (K, B, P), what the fine-tuner was fed.
        cotangents: (K, B, P), c_1 … c_K.
    """
    rows = [
        _vector(_pull_back(learner, meta, *pair), meta)
        for pair in zip(inputs.unbind(1), cotangents.unbind(1), strict=True)
    ]
    return torch.stack(rows).cpu()


def sigma_of(
    family: TaskFamily, path: Trajectory, query: Batch, steps: int, n_draws: int
) -> Tensor:
    """σ of assumption A2 for each task, (T,), from examples that θ⁽ᵏ⁾ was not fitted on.

    The root of the variance of per-example gradients, averaged over the draws of the task; the
    largest of four points of the trajectory.
    """
    batch = first(query, examples(family, 1), SIGMA_EXAMPLES)
    checked = sorted({math.ceil(steps * quarter / 4) - 1 for quarter in (1, 2, 3, 4)})
    variances = [deviation(family, path.points[k], batch).square() for k in checked]
    by_task: Tensor = torch.stack(variances).unflatten(1, (-1, n_draws))
    return by_task.mean(2).amax(0).sqrt().cpu()


def deviation(family: TaskFamily, params: Params, batch: Batch) -> Tensor:
    """Standard deviation of per-example gradients, √(E‖∇f(θ; x) − ∇f(θ)‖²), (B,)."""
    n = batch.size
    each = Batch(*(leaf.flatten(0, 1)[:, None] for leaf in batch))
    copies = {name: leaf.repeat_interleave(n, 0) for name, leaf in params.items()}
    grads: Tensor = _by_task(value_and_grad(family, copies, each)[1]).unflatten(0, (-1, n))
    return grads.var(1).sum(1).sqrt()


def jacobian_norm(
    learner: Learner, meta: Params, inputs: Tensor, n_draws: int, random: Generator
) -> Tensor:
    """G of assumption A3 for each task, (T,): the largest ‖∂θ⁽ᵏ⁾/∂φ‖₂ over k = 1 … K.

    By power iteration on the first draw of the task. The products J v are central differences,
    which only steer; the value is ‖Jᵀu‖ for a unit vector u, so it never exceeds the norm.

    Args:
        inputs: (K, T · R, P), what the fine-tuner was fed.
    """
    size = _vector(meta, meta).norm()
    found = []
    for of_task in inputs[:, ::n_draws].unbind(1):
        cotangents = torch.zeros_like(of_task)
        cotangents[-1] = torch.randn(of_task.shape[1], generator=random).to(of_task)
        for _ in range(POWER_ITERATIONS):
            row = _pull_back(learner, meta, of_task, cotangents)
            shift = SHIFT * size / _vector(row, meta).norm()
            ahead, behind = (
                _updates(learner, {name: meta[name] + move * row[name] for name in meta}, of_task)
                for move in (shift, -shift)
            )
            products = (ahead - behind).cumsum(0)
            k = int(products.norm(dim=1).argmax())
            cotangents = torch.zeros_like(of_task)
            cotangents[k] = products[k] / products[k].norm()
        found.append(_vector(_pull_back(learner, meta, of_task, cotangents), meta).norm())
    return torch.stack(found).cpu()


def _pull_back(learner: Learner, meta: Params, inputs: Tensor, cotangents: Tensor) -> Params:
    """Σ_k c_kᵀ ∂θ⁽ᵏ⁾/∂φ of one task, from (K, P) inputs and cotangents."""
    meta = {name: leaf.detach().requires_grad_() for name, leaf in meta.items()}
    start = _one(torch.zeros_like(inputs[0]))
    point = Point(start, learner.tuner(meta).start(start))
    return inputs_to_meta(learner, meta, point, *(list(map(_one, x)) for x in (inputs, cotangents)))


@torch.no_grad()
def _updates(learner: Learner, meta: Params, inputs: Tensor) -> Tensor:
    """Δ⁽¹⁾ … Δ⁽ᴷ⁾ of one task from given inputs, (K, P)."""
    tuner, zero = learner.tuner(meta), _one(torch.zeros_like(inputs[0]))
    state, updates = tuner.start(zero), []
    for gradient in inputs:
        state, moved = tuner.step(state, zero, _one(gradient))
        updates.append(-flatten(moved))
    return torch.stack(updates)


def resized(family: TaskFamily, size: int) -> TaskFamily:
    """The family with other set sizes (examples per class).

    Raises:
        UsageError: a class has too few images.
    """
    assert isinstance(family, Sine | Classification | Attack)
    sized = copy.copy(family)
    sized.settings = family.settings.model_copy(update={"support": size, "query": size})
    if not isinstance(sized, Sine):
        sized.pools.check(examples(sized, 1), size, size, ("train",))
    return sized


def first(batch: Batch, n_classes: int, size: int) -> Batch:
    """The first ``size`` examples of each class, or all if there are fewer."""
    return Batch(*(leaf.unflatten(1, (n_classes, -1))[:, :, :size].flatten(1, 2) for leaf in batch))


def other_draw(batch: Batch, n_draws: int) -> Batch:
    """For each draw the data of the previous draw of its task; for the first, of the last."""
    return Batch(
        *(leaf.unflatten(0, (-1, n_draws)).roll(1, dims=1).flatten(0, 1) for leaf in batch)
    )


def examples(family: TaskFamily, per_class: int) -> int:
    """|D| for a number of examples per class."""
    if isinstance(family, Classification):
        return per_class * family.settings.ways
    return per_class * family.settings.classes if isinstance(family, Attack) else per_class


def _one(vector: Tensor) -> Params:
    """All coordinates of one task as a single parameter: the fine-tuner works coordinate-wise."""
    return {"theta": vector[None]}


def _by_task(params: Params) -> Tensor:
    """(B, P)."""
    return flatten(params).view(len(next(iter(params.values()))), -1)


def _vector(leaves: Params, meta: Params) -> Tensor:
    """All entries in one vector, in the order of φ."""
    return torch.cat([leaves[name].flatten() for name in meta])
