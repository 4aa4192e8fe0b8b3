"""Theorem 1: the gap between the meta-gradients of LFT and L2O, its parts and its bound.

For one task, a trajectory θ⁽¹⁾ … θ⁽ᴷ⁾ fine-tuned on D_tr, and any data X, let
∇_φ(X) = Σ_k w_k G_kᵀ ∇f(θ⁽ᵏ⁾; X). LFT's meta-gradient is ∇_φ(D_val), L2O's is ∇_φ(D_tr), and with a
fresh sample D_new of the size of D_tr

    ∇_φ(D_val) − ∇_φ(D_tr) = [∇_φ(D_val) − ∇_φ(D_new)] + [∇_φ(D_new) − ∇_φ(D_tr)].

The first bracket is noise between samples that θ⁽ᵏ⁾ does not depend on: what the theorem speaks of.
The second is there because θ⁽ᵏ⁾ was fitted on D_tr, which assumption A1 rules out. Second-order
terms are dropped throughout, as in training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from lft.adapt import Point, adapt
from lft.config import Profile, Run
from lft.gradients import value_and_grad
from lft.learner import Learner
from lft.metagradient import inputs_to_meta, step_weights
from lft.seeding import generator
from lft.tasks.attack import Attack
from lft.tasks.base import Objective, TaskFamily
from lft.tasks.classification import Classification
from lft.tasks.sine import Sine
from lft.types import Batch, Params, flatten
from lft.weights import below, load_tensors
from lft.world import build_families

SIGMA_EXAMPLES = 8
"""Fresh examples (per class) from which the variance of per-example gradients is estimated."""

PROBES = 1
"""Random probes of each Jacobian norm; tasks and seeds average their noise out."""


class Trajectory(NamedTuple):
    """Fine-tuning of B tasks: its start, inputs g⁽⁰⁾ … g⁽ᴷ⁻¹⁾ and points θ⁽¹⁾ … θ⁽ᴷ⁾."""

    start: Point
    inputs: list[Params]
    points: list[Params]


def measure(profile: Profile, experiment: str, results: Path) -> Iterator[tuple[Any, ...]]:
    """Rows of THEORY_COLUMNS: |D_tr|, then |D_val|, then K varied, for φ at initialisation, halfway
    through meta-training and trained; one value per task.

    Tasks come from the meta-training images, since the theorem is about meta-training.
    """
    settings = profile.theory.gap
    name = profile.theory_families(experiment)[0]
    family = build_families(profile, profile.experiment(experiment), [name], results)[name]
    fixed, longest = settings.fixed_size, max(settings.steps)
    cases = [(size, fixed, longest) for size in settings.sizes]
    cases += [(fixed, size, longest) for size in settings.sizes]
    cases += [(fixed, fixed, steps) for steps in settings.steps]
    for run in profile.theory_runs(experiment):
        if run.method != "lft":
            continue
        learner = Learner.of(profile, run)
        flat, _ = load_tensors(results / run.folder / "weights.safetensors", profile.device)
        for stage in ("initial", "halfway", "best"):
            meta = below(stage, flat)
            for support, query, steps in dict.fromkeys(cases):
                values = gap(learner, meta, run, family, support, query, steps, settings.tasks)
                sizes = (examples(family, support), examples(family, query))
                for quantity, per_task in values.items():
                    for task, value in enumerate(per_task):
                        yield (
                            experiment, stage, quantity, "lft", run.seed, steps, *sizes,
                            f"{name}-{task}", value,
                        )  # fmt: skip


def gap(
    learner: Learner,
    meta: Params,
    run: Run,
    family: TaskFamily,
    support: int,
    query: int,
    steps: int,
    n_tasks: int,
) -> dict[str, list[float]]:
    """Gap, its two parts, σ, G and the bound, one value per task.

    Args:
        support: examples per class in D_tr; ``query`` likewise in D_val.
        steps: K.

    Returns:
        ``gap``, ``variance_part``, ``fitting_part``: norms of the difference and of its brackets;
        ``sigma``: √ of the largest mean squared deviation of per-example gradients along the
        trajectory (A2); ``jacobian``: an estimate of the largest ‖∂θ⁽ᵏ⁾/∂φ‖_F (A3; the Frobenius
        norm is an upper bound of the spectral one); ``bound``: the theorem's right-hand side.
    """
    random = generator("theorem 1", run.experiment, run.seed, support, query, steps)
    sizes = [query, support, SIGMA_EXAMPLES]
    sized = resized(family, support, sum(sizes))
    tasks = sized.sample(n_tasks, random, "train")
    validation, fresh, extra = split(sized, tasks.query, sizes)
    path = trajectory(learner, meta, sized, tasks.support, steps, random)
    weights = step_weights("uniform", steps)
    of_val, of_new, of_tr = (
        [value_and_grad(sized, point, data)[1] for point in path.points]
        for data in (validation, fresh, tasks.support)
    )
    norms = {
        "gap": _norms(learner, meta, path, _minus(of_val, of_tr, weights)),
        "variance_part": _norms(learner, meta, path, _minus(of_val, of_new, weights)),
        "fitting_part": _norms(learner, meta, path, _minus(of_new, of_tr, weights)),
    }
    checked = sorted({math.ceil(steps * quarter / 4) - 1 for quarter in (1, 2, 3, 4)})
    sigma = torch.stack([deviation(sized, path.points[k], extra) for k in checked]).amax(0)
    jacobian = jacobian_norms(learner, meta, path, checked, random)
    n_tr, n_val = examples(family, support), examples(family, query)
    bound = jacobian * sigma * (n_tr**-0.5 + n_val**-0.5)
    tensors = norms | {"sigma": sigma, "jacobian": jacobian, "bound": bound}
    return {name: values.tolist() for name, values in tensors.items()}


def trajectory(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    support: Batch,
    steps: int,
    random: Generator,
) -> Trajectory:
    """Fine-tune B tasks from random starts, remembering inputs and points."""
    params = learner.start(meta, family, support.x.shape[0], random)
    tuner = learner.tuner(meta)
    start = Point(params, tuner.start(params))
    inner, inputs = learner.gradient(random), []

    def gradient(family: Objective, params: Params, batch: Batch) -> Params:
        inputs.append(inner(family, params, batch))
        return inputs[-1]

    with torch.no_grad():
        path = adapt(family, tuner, start, support, steps=steps, gradient=gradient)
        return Trajectory(start, inputs, [point.params for point in path])


def jacobian_norms(
    learner: Learner, meta: Params, path: Trajectory, steps: Sequence[int], random: Generator
) -> Tensor:
    """The largest ‖∂θ⁽ᵏ⁾/∂φ‖_F over the given steps, (B,), by E‖Jᵀz‖² = ‖J‖²_F for z ~ N(0, I)."""
    largest = torch.zeros(_n_tasks(path.start.params))
    for k in steps:
        squares = torch.zeros_like(largest)
        for _ in range(PROBES):
            probe = {
                name: torch.randn(leaf.shape, generator=random).to(leaf)
                for name, leaf in path.points[k].items()
            }
            zeros = {name: torch.zeros_like(leaf) for name, leaf in probe.items()}
            cotangents = [probe if step == k else zeros for step in range(k + 1)]
            squares += _norms(learner, meta, path, cotangents) ** 2
        largest = torch.maximum(largest, (squares / PROBES).sqrt())
    return largest


def deviation(family: TaskFamily, params: Params, batch: Batch) -> Tensor:
    """Standard deviation of per-example gradients, √(E‖∇f(θ; x) − ∇f(θ)‖²), (B,)."""
    n = batch.size
    each = Batch(*(leaf.flatten(0, 1)[:, None] for leaf in batch))
    copies = {name: leaf.repeat_interleave(n, 0) for name, leaf in params.items()}
    grads = flatten(value_and_grad(family, copies, each)[1]).view(-1, n, _size(params))
    return (grads - grads.mean(1, keepdim=True)).square().sum((1, 2)).div(n - 1).sqrt()


def resized(family: TaskFamily, support: int, query: int) -> TaskFamily:
    """The family with other set sizes (examples per class).

    Raises:
        UsageError: a class has too few images.
    """
    assert isinstance(family, Sine | Classification | Attack)
    sized = copy.copy(family)
    sized.settings = family.settings.model_copy(update={"support": support, "query": query})
    if not isinstance(sized, Sine):
        sized.pools.check(examples(sized, 1), support, query, ("train",))
    return sized


def split(family: TaskFamily, batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    """Divide a batch class by class into batches of the given sizes (examples per class)."""
    n_classes = examples(family, 1)

    def divide(leaf: Tensor) -> list[Tensor]:
        by_class = leaf.unflatten(1, (n_classes, sum(sizes)))
        return [part.flatten(1, 2) for part in by_class.split(list(sizes), dim=2)]

    return [Batch(x, y) for x, y in zip(divide(batch.x), divide(batch.y), strict=True)]


def examples(family: TaskFamily, per_class: int) -> int:
    """|D| for a number of examples per class."""
    if isinstance(family, Classification):
        return per_class * family.settings.ways
    return per_class * family.settings.classes if isinstance(family, Attack) else per_class


def _minus(first: list[Params], second: list[Params], weights: Sequence[float]) -> list[Params]:
    """w_k (a_k − b_k)."""
    return [
        {name: w * (a[name] - b[name]) for name in a}
        for w, a, b in zip(weights, first, second, strict=True)
    ]


def _norms(learner: Learner, meta: Params, path: Trajectory, cotangents: list[Params]) -> Tensor:
    """‖Σ_k G_kᵀ c_k‖ of each task, (B,)."""
    norms = []
    n_tasks = _n_tasks(path.start.params)
    states = path.start.state.unflatten(-1, (n_tasks, -1))
    for task in range(n_tasks):
        start = Point(_one(path.start.params, task), states[..., task, :].contiguous())
        inputs = [_one(g, task) for g in path.inputs[: len(cotangents)]]
        of_task = [_one(c, task) for c in cotangents]
        grads = inputs_to_meta(learner, _with_grad(meta), start, inputs, of_task)
        norms.append(torch.sqrt(sum((g.square().sum() for g in grads.values()), torch.zeros(()))))
    return torch.stack(norms).cpu()


def _with_grad(meta: Params) -> Params:
    return {name: leaf.detach().requires_grad_() for name, leaf in meta.items()}


def _one(params: Params, task: int) -> Params:
    return {name: leaf[task : task + 1] for name, leaf in params.items()}


def _n_tasks(params: Params) -> int:
    return next(iter(params.values())).shape[0]


def _size(params: Params) -> int:
    return sum(leaf[0].numel() for leaf in params.values())
