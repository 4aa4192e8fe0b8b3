"""The remark after Statement 1: how meta-gradients change with the number of steps K.

Both methods fine-tune the same tasks for K steps; the outer loss looks at the last step only, and
second-order terms are kept, so the gradient runs through the whole trajectory. The norm is that of
each task's own meta-gradient: averaged over tasks, it would be small where meta-training has
converged, whatever K does.
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
from lft.tasks.build import build_families
from lft.theory.trajectory import in_order


def measure(
    profile: Profile, experiment: str, seed: int, results: Path
) -> Iterator[tuple[Any, ...]]:
    """Rows of THEORY_COLUMNS: ‖∇ of the outer loss in θ⁽⁰⁾ (MAML) or φ (LFT)‖ of every task and K,
    at initial and at trained meta-parameters; what is not finite stands there as it is."""
    settings = profile.theory.vanishing
    name = profile.theory_families(experiment)[0]
    families = build_families(profile, profile.experiment(experiment), [name], results, seed=seed)
    family = families[name]
    for run in profile.theory_runs(experiment):
        if run.seed != seed:
            continue
        flat, _ = load_tensors(results / run.folder / "weights.safetensors", profile.device)
        for stage in ("initial", "best"):
            meta = below(stage, flat)
            for steps in settings.steps:
                learner = unrolled(Learner.of(profile, run), steps)
                for task in range(settings.tasks):
                    # The same task and start for every K, stage and method.
                    random = generator("vanishing", experiment, seed, task)
                    tasks = family.sample(1, random, "train")
                    found = meta_gradient(learner, meta, family, tasks, None, random)
                    yield (
                        *(experiment, stage, "meta_gradient_norm", run.method, seed, steps, 0, 0),
                        *(f"{name}-{task}", float(in_order(found.grads, meta).norm())),
                    )


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
    maml = experiment.descent.model_copy(update={"steps": steps})
    changed = experiment.model_copy(update={"training": training, "maml": maml})
    return Learner(learner.method, changed, learner.order, "torch")
