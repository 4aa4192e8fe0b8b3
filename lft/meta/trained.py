"""Whether a meta-training came to its end: four checks on its meta-validations.

A method that is not trained says nothing about the claims that it appears in. The checks are pure
functions of what ``history.csv`` holds; :func:`check` reads them from a result folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.meta.learner import Learner
from lft.meta.selection import validate
from lft.meta.train import train
from lft.methods import METHODS
from lft.results.history import read_history
from lft.results.manifest import manifest
from lft.storage.json import read_json, write_json
from lft.tasks.base import TaskFamily
from lft.tasks.build import build_families

ROUNDS = 20
"""Meta-validations that a choice among checkpoints needs at least."""

LONGER = 3
"""Times the meta-batches of the rerun that shows whether longer training helps."""

EXPLODED = 10.0
"""Times the loss of the untrained start from which on a training counts as unstable."""


class Check(NamedTuple):
    """One check.

    Attributes:
        name: ``longer does not help``, ``the end is good``, ``stable`` or ``worth it``.
        passed: None if what it needs was not recorded.
        value: what was measured.
        limit: what ``value`` must not exceed.
    """

    name: str
    passed: bool | None
    value: float
    limit: float


class Validations(NamedTuple):
    """Meta-validations of one meta-training, in order, without the one of the untrained start.

    Attributes:
        steps: meta-batches done before each.
        scores: lower is better.
        errors: their standard errors over meta-validation tasks.
        outer: uncapped outer losses on the same tasks.
        start: uncapped outer loss of the untrained start.
    """

    steps: Sequence[float]
    scores: Sequence[float]
    errors: Sequence[float]
    outer: Sequence[float]
    start: float

    @classmethod
    def of(cls, history: pd.DataFrame) -> Validations:
        """From the rows of a ``history.csv``."""
        validated = history.dropna(subset=["validation"])
        trained = validated[validated["meta_step"] > 0]
        begun = validated[validated["meta_step"] == 0]["outer"]
        return cls(
            trained["meta_step"].tolist(),
            trained["validation"].tolist(),
            trained["error"].tolist(),
            trained["outer"].tolist(),
            float(begun.iloc[0]) if len(begun) else math.nan,
        )

    @property
    def best(self) -> int:
        """Index of the lowest score."""
        return min(range(len(self.scores)), key=lambda i: self.scores[i])


def smallest_effect(primary: str, score: float) -> float:
    """The smallest improvement of a meta-validation score that matters: 2 points of accuracy, or a
    loss lower by a factor of 1.1."""
    return 0.02 if primary == "accuracy" else score * (1 - 1 / 1.1)


def longer_does_not_help(validations: Validations, longer: Validations, smallest: float) -> Check:
    """A rerun with :data:`LONGER` times the meta-batches, and its schedule stretched, improves the
    score by less than one standard error, and by less than the smallest effect of interest."""
    here, there = validations.best, longer.best
    gain = validations.scores[here] - longer.scores[there]
    limit = _least(validations.errors[here], smallest)
    return Check("longer does not help", _at_most(gain, limit), gain, limit)


def the_end_is_good(validations: Validations) -> Check:
    """The best of :data:`ROUNDS` checkpoints or more lies in the last half, or the last one is
    worse by no more than one standard error."""
    best = validations.best
    loss = validations.scores[-1] - validations.scores[best]
    late = validations.steps[best] > validations.steps[-1] / 2
    limit = validations.errors[-1]
    enough = len(validations.scores) >= ROUNDS
    close = _at_most(loss, limit)
    return Check("the end is good", enough and (late or close), loss, limit)


def stable(validations: Validations) -> Check:
    """The uncapped outer loss of the meta-validation tasks stays below :data:`EXPLODED` times that
    of the untrained start after the first tenth, in 99 % of the meta-validations."""
    tenth = validations.steps[-1] / 10
    late = [f for k, f in zip(validations.steps, validations.outer, strict=True) if k > tenth]
    if math.isnan(validations.start):
        return Check("stable", None, math.nan, 0.01)
    exploded = sum(not f < EXPLODED * validations.start for f in late) / len(late)
    return Check("stable", exploded <= 0.01, exploded, 0.01)


def worth_it(validations: Validations, baselines: Sequence[Validations]) -> Check:
    """The score is not behind that of the best hand-designed optimizer, tuned on the same tasks
    from the same starts, by more than one standard error of the difference."""
    here = validations.best
    best = min(baselines, key=lambda other: other.scores[other.best])
    behind = validations.scores[here] - best.scores[best.best]
    limit = math.hypot(validations.errors[here], best.errors[best.best])
    return Check("worth it", _at_most(behind, limit), behind, limit)


def _at_most(value: float, limit: float) -> bool | None:
    """None where the limit was not recorded."""
    return None if math.isnan(limit) else value <= limit


def _least(*limits: float) -> float:
    return math.nan if any(map(math.isnan, limits)) else min(limits)


def check(profile: Profile, run: Run, results: Path) -> list[Check]:
    """All checks of one run whose training is in the result folder.

    The rerun of :func:`longer_does_not_help` is trained in the folder ``longer`` below it, unless
    it is there already.

    Raises:
        UsageError: the run is missing, diverged or is not meta-trained.
    """
    experiment = profile.experiment(run.experiment)
    if experiment.base_method(run.method).learns == "step_size":
        raise UsageError(f"{run.method} is not meta-trained; its step size is picked from a grid")
    validations = _read(results, run)
    learner = Learner.of(profile, run)
    families = build_families(
        profile, learner.experiment, run.trained_on.split("+"), results, seed=run.seed
    )
    folder = results / "longer"
    if not (folder / run.folder / "run.json").is_file():
        _link_inputs(results, folder)
        train(longer_profile(profile, run), run, folder)
    longer = _read(folder, run)
    smallest = smallest_effect(experiment.primary, validations.scores[validations.best])
    return [
        longer_does_not_help(validations, longer, smallest),
        the_end_is_good(validations),
        stable(validations),
        worth_it(validations, tuned(learner, run, families)),
    ]


def write_checks(profile: Profile, run: Run, results: Path) -> None:
    """Write the checks of a run into ``trained.json`` in its folder.

    Raises:
        UsageError: as :func:`check`.
    """
    checks = [found._asdict() for found in check(profile, run, results)]
    content = manifest(profile.training_inputs(run), checks=checks)
    write_json(results / run.folder / "trained.json", content)


def tuned(learner: Learner, run: Run, families: dict[str, TaskFamily]) -> list[Validations]:
    """SGD and Adam with every step size of their grids, on the learner's own objective and data."""
    found = []
    for rule in ("sgd", "adam"):
        other = replace(learner, method=replace(METHODS[rule], outer=learner.method.outer))
        grid = learner.experiment.step_sizes[rule]
        metas = [{"step_size": torch.tensor(size, dtype=torch.float64)} for size in grid]
        validated = [validate(other, meta, run, families) for meta in metas]
        scores, errors, outer = (list(column) for column in zip(*validated, strict=True))
        found.append(Validations(grid, scores, errors, outer, math.nan))
    return found


def longer_profile(profile: Profile, run: Run) -> Profile:
    """The profile with :data:`LONGER` times the meta-batches for one method or variant.

    Schedules and curricula stretch, since they follow the share of meta-batches that is done.
    """
    experiment = profile.experiment(run.experiment)
    own = experiment.for_method(run.method)
    changes: dict[str, Any] = {
        name: part.model_copy(update={"epochs": LONGER * part.epochs})
        for name, part in (("training", own.training), ("maml", own.maml))
        if part is not None
    }
    changes["variants"] = {
        name: variant.model_copy(update={"set": {}})
        for name, variant in experiment.variants.items()
        if name == run.method
    }
    stretched = own.model_copy(update=changes | {"overrides": {}})
    return profile.model_copy(
        update={"experiments": {**profile.experiments, run.experiment: stretched}}
    )


def _link_inputs(results: Path, folder: Path) -> None:
    """Let another result folder use the images and victims of this one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("data", "victims"):
        if (results / name).is_dir():
            with suppress(FileExistsError):  # another run of this folder may be checked right now
                (folder / name).symlink_to((results / name).resolve(), target_is_directory=True)


def _read(results: Path, run: Run) -> Validations:
    """The meta-validations of a run that did not diverge."""
    found = read_json(results / run.folder / "run.json", status=str)
    if found["status"] != "ok":
        raise UsageError(f"{results / run.folder}: this training {found['status']}: untrained")
    return Validations.of(read_history(results / run.folder / "history.csv"))
