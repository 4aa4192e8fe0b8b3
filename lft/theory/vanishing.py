"""The remark after Statement 1: how meta-gradients change with the number of steps K.

Both methods fine-tune the same tasks for K steps. The outer loss weights only the last step and
second-order terms are kept, so the gradient passes through the whole trajectory. The norm is taken
per task: a meta-gradient averaged over tasks is small after convergence, whatever K is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lft.config import Profile
from lft.meta.estimators import meta_gradient
from lft.meta.learner import Learner
from lft.seeding import generator
from lft.storage.tensors import below, load_tensors
from lft.theory.family import measured_family
from lft.theory.trajectory import in_order


def measure(
    profile: Profile, experiment: str, seed: int, results: Path
) -> Iterator[tuple[Any, ...]]:
    """Yield rows of THEORY_COLUMNS: the norm of the meta-gradient of every task and K.

    The meta-gradient is with respect to θ⁽⁰⁾ for MAML and φ for LFT, at initial and at best
    meta-parameters. Values that are not finite are kept.

    Args:
        profile: settings.
        experiment: name of the experiment.
        seed: seed of the trained runs.
        results: the profile's result folder.

    Raises:
        UsageError: weights are missing or damaged.
    """
    settings = profile.theory.vanishing
    name, family = measured_family(profile, experiment, seed, results)
    for run in profile.theory_runs(experiment):
        if run.seed != seed:
            continue
        flat, _ = load_tensors(results / run.folder / "weights.safetensors", profile.device)
        for stage in ("initial", "best"):
            meta = below(stage, flat)
            for steps in settings.steps:
                learner = unrolled(Learner.of(profile, run), steps)
                for task in range(settings.tasks):
                    # Every K, stage and method gets the same task and, if random, the same start.
                    random = generator("vanishing", experiment, seed, task)
                    tasks = family.sample(1, random, "train")
                    found = meta_gradient(learner, meta, family, tasks, None, random)
                    yield (
                        *(experiment, stage, "meta_gradient_norm", run.method, seed, steps, 0, 0),
                        *(f"{name}-{task}", float(in_order(found.grads, meta).norm())),
                    )


def unrolled(learner: Learner, steps: int) -> Learner:
    """Return the learner with one segment of K steps, w_k = 1[k = K] and second-order terms."""
    experiment = learner.experiment
    training = experiment.training.model_copy(
        update={
            "steps": steps,
            "segment": steps,
            "step_weights": "final",
            "estimator": "exact",
        }
    )
    maml = experiment.descent.model_copy(update={"steps": steps})
    changed = experiment.model_copy(update={"training": training, "maml": maml})
    return Learner(learner.method, changed, learner.order, "torch")
