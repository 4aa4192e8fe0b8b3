"""The remark after Statement 1: how meta-gradients change with the number of steps K.

Both methods fine-tune the same tasks for K steps; the outer loss looks at the last step only, and
second-order terms are kept, so the gradient runs through the whole trajectory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lft.config import Profile
from lft.meta.estimators import meta_gradient
from lft.meta.learner import Learner
from lft.seeding import generator
from lft.storage.tensors import below, load_tensors
from lft.tasks.build import build_families
from lft.types import flatten


def measure(profile: Profile, experiment: str, results: Path) -> Iterator[tuple[Any, ...]]:
    """Rows of THEORY_COLUMNS: ‖∇ of the outer loss in θ⁽⁰⁾ (MAML) or φ (LFT)‖ for every K, trained
    meta-parameters. K at which a trajectory is not finite is left out."""
    settings = profile.theory.vanishing
    name = profile.theory_families(experiment)[0]
    family = build_families(profile, profile.experiment(experiment), [name], results)[name]
    for run in profile.theory_runs(experiment):
        flat, _ = load_tensors(results / run.folder / "weights.safetensors", profile.device)
        meta = below("best", flat)
        for steps in settings.steps:
            random = generator("vanishing", experiment, run.seed)
            tasks = family.sample(settings.tasks, random, "train")
            learner = unrolled(Learner.of(profile, run), steps)
            grads = meta_gradient(learner, meta, family, tasks, None, random).grads
            norm = float(flatten({k: leaf[None] for k, leaf in grads.items()}).norm())
            if torch.isfinite(torch.tensor(norm)):
                yield (
                    experiment, "best", "meta_gradient_norm", run.method, run.seed,
                    steps, 0, 0, name, norm,
                )  # fmt: skip


def unrolled(learner: Learner, steps: int) -> Learner:
    """The learner with one segment of K steps, final-step weights and exact second order."""
    experiment = learner.experiment
    training = experiment.training.model_copy(
        update={
            "steps": steps,
            "segment": steps,
            "step_weights": "final",
            "estimator": "exact",
        }
    )
    maml = experiment.maml.model_copy(update={"steps": steps})
    changed = experiment.model_copy(update={"training": training, "maml": maml})
    return Learner(learner.method, changed, learner.order, "torch")
