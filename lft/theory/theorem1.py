"""Measure Theorem 1: E‖∇_φ(D_val) − ∇_φ(D_tr)‖ ≤ G σ Σ_k w_k (1/√|D_tr| + 1/√|D_val|).

There are two series of points. Both use the same tasks, starts and data at every stage of
meta-training:

- ``lft``: the gap between LFT and L2O, with a separate trajectory for each size of D_tr
  (:func:`lft.theory.design.cases`);
- ``lft frozen``: one trajectory, fitted at the fixed size, with D_new and D_val independent of it
  (:func:`lft.theory.design.frozen_cases`). The theorem's assumptions hold here by construction.

Our copy of the paper lost the formula; this is our reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Generator, Tensor

from lft.config import GapSettings, Profile
from lft.meta.estimators.base import step_weights
from lft.meta.learner import Learner
from lft.seeding import generator
from lft.storage.tensors import below, load_tensors
from lft.tasks.base import TaskFamily
from lft.theory.bound import jacobian_norms, rate
from lft.theory.design import (
    Case,
    Draws,
    cases,
    first,
    frozen_cases,
    sample_draws,
)
from lft.theory.family import measured_family
from lft.theory.gap import mean_norm, over_draws, parts, products
from lft.theory.sigma import deviations
from lft.theory.trajectory import gradients, meta_gradients, trajectory
from lft.types import Params

FITTED, FROZEN = "lft", "lft frozen"
"""Values of the column ``method`` for the two series."""


class Measured(NamedTuple):
    """A measured point of a series.

    Attributes:
        series: :data:`FITTED` or :data:`FROZEN`.
        case: set sizes and K.
        quantities: one value per task, (T,), by name.
    """

    series: str
    case: Case
    quantities: dict[str, Tensor]


def measure(
    profile: Profile, experiment: str, seed: int, results: Path
) -> Iterator[tuple[Any, ...]]:
    """Yield rows of THEORY_COLUMNS for one seed, one value per task.

    φ is taken at initialisation, halfway through meta-training, and at its best. Values that are
    not finite are kept.

    Args:
        profile: settings.
        experiment: name of the experiment.
        seed: seed of the trained run.
        results: the profile's result folder.

    Raises:
        UsageError: weights are missing or damaged, or a family cannot draw tasks of these sizes.
    """
    settings = profile.theory.gap
    name, family = measured_family(profile, experiment, seed, results)
    runs = profile.theory_runs(experiment)
    run = next(run for run in runs if (run.method, run.seed) == ("lft", seed))
    learner = Learner.of(profile, run)
    flat, _ = load_tensors(results / run.folder / "weights.safetensors", profile.device)
    random = generator("theorem 1", experiment, seed)
    draws, n_classes = sample_draws(family, settings, random), family.settings.classes_per_task
    for stage in ("initial", "halfway", "best"):
        meta = below(stage, flat)
        for series, case, quantities in gaps(learner, meta, family, draws, settings, random):
            sizes = n_classes * case.support, n_classes * case.query
            for quantity, values in quantities.items():
                for task, value in enumerate(values.tolist()):
                    yield (
                        *(experiment, stage, quantity, series, seed, case.steps, *sizes),
                        *(f"{name}-{task}", value),
                    )


def gaps(
    learner: Learner,
    meta: Params,
    family: TaskFamily,
    draws: Draws,
    settings: GapSettings,
    random: Generator,
) -> Iterator[Measured]:
    """Yield every point of both series.

    Points of :data:`FITTED` have the quantities of :func:`lft.theory.gap.parts` and
    :func:`lft.theory.gap.products`; those of :data:`FROZEN` have only ``variance_part``. Both add
    ``sigma`` and ``jacobian``, the theorem's σ and G, and ``bound``, its right-hand side. All three
    come from the task's own trajectories.

    Args:
        learner: method and settings.
        meta: meta-parameters φ.
        family: family of the tasks.
        draws: tasks, starts and data.
        settings: set sizes, K and number of draws.
        random: draws the initial vectors of the power iteration.
    """
    fixed, frozen = settings.fixed_size, frozen_cases(settings)
    wanted = cases(settings)
    for size in dict.fromkeys(case.support for case in wanted):
        of_size = [case for case in wanted if case.support == size]
        along = _Along(learner, meta, family, draws, size, max(case.steps for case in of_size))
        for steps in dict.fromkeys(case.steps for case in of_size):
            also = frozen if size == fixed and steps == max(settings.steps) else []
            yield from along.compare(
                [case for case in of_size if case.steps == steps], also, settings.draws, random
            )


class _Along:
    """Meta-gradients and constants along the trajectories fitted at one size of D_tr."""

    def __init__(
        self,
        learner: Learner,
        meta: Params,
        family: TaskFamily,
        draws: Draws,
        size: int,
        longest: int,
    ) -> None:
        self.learner, self.meta, self.family, self.draws = learner, meta, family, draws
        self.size, self.n_classes = size, family.settings.classes_per_task
        support = first(draws.support, self.n_classes, size)
        self.path = trajectory(learner, meta, family, draws.start, support, longest)
        self.sigma = deviations(family, self.path, draws.held)
        self.seen: dict[tuple[str, int], Tensor] = {}

    def compare(
        self, fitted: list[Case], frozen: list[Case], n_draws: int, random: Generator
    ) -> Iterator[Measured]:
        """Yield the points of both series for one K."""
        steps = (fitted or frozen)[0].steps
        inputs = self.path.gradients[:steps]
        kind = self.learner.experiment.training.step_weights
        w = inputs.new_tensor(step_weights(kind, steps))[:, None, None]
        jacobian = jacobian_norms(self.learner, self.meta, inputs, random)
        sigma = self.sigma[steps]
        vectors: dict[tuple[str, int], Tensor] = {}

        def vector(of: str, size: int) -> Tensor:
            if (of, size) not in vectors:
                on_set = w * self._gradients(of, size)[:steps]
                vectors[of, size] = meta_gradients(self.learner, self.meta, inputs, on_set)
            return vectors[of, size]

        def bounded(case: Case, found: dict[str, Tensor]) -> dict[str, Tensor]:
            sizes = self.n_classes * case.support, self.n_classes * case.query
            constants = {
                "sigma": sigma,
                "jacobian": jacobian,
                "bound": jacobian * sigma * float(w.sum()) * rate(*sizes),
            }
            return found | {name: over_draws(x, n_draws) for name, x in constants.items()}

        for case in fitted:
            on_val, on_new = vector("query", case.query), vector("fresh", case.support)
            found = parts(on_val - vector("support", self.size), on_val - on_new, n_draws)
            sets = (("support", self.size), ("fresh", case.support), ("query", case.query))
            on_tr, on_new, on_val = (self._gradients(*chosen)[:steps] for chosen in sets)
            found |= products(on_tr, on_new, w * on_val, n_draws)
            yield Measured(FITTED, case, bounded(case, found))
        for case in frozen:
            between = vector("query", case.query) - vector("fresh", case.support)
            found = {"variance_part": mean_norm(between, n_draws)}
            yield Measured(FROZEN, case, bounded(case, found))

    def _gradients(self, of: str, size: int) -> Tensor:
        """Return ∇f(θ⁽ᵏ⁾; X), (K, B, P), where X is the first ``size`` per class of a set."""
        if of == "support":
            return self.path.gradients[1:]
        if (of, size) not in self.seen:
            batch = first(getattr(self.draws, of), self.n_classes, size)
            self.seen[of, size] = gradients(self.family, self.path, batch)
        return self.seen[of, size]
