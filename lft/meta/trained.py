"""Check that a meta-training has converged: compute a longer rerun and tuned baselines.

:mod:`lft.results.trained` defines the checks.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.meta.learner import Learner
from lft.meta.selection import validate
from lft.meta.train import train
from lft.methods import METHODS
from lft.results.history import read_history
from lft.results.manifest import manifest
from lft.results.trained import (
    BASELINES,
    LONGER,
    LONGER_FOLDER,
    Check,
    Validations,
    check_baselines,
    longer_does_not_help,
    smallest_effect,
    stable,
    the_end_is_good,
    worth_it,
)
from lft.storage.json import read_json, write_json
from lft.tasks.base import TaskFamily
from lft.tasks.build import build_families


def check(profile: Profile, run: Run, results: Path) -> list[Check]:
    """Run all checks on one run in the result folder.

    Trains the rerun for :func:`longer_does_not_help` in the subfolder ``longer``, unless it is
    already there.

    Args:
        profile: settings of the run.
        run: the run to check.
        results: the profile's result folder.

    Raises:
        UsageError: the run or its rerun is missing or diverged, the method is not meta-trained, or
            the experiment has no step sizes for a baseline.
    """
    experiment = profile.experiment(run.experiment)
    if experiment.base_method(run.method).learns == "step_size":
        raise UsageError(f"{run.method} is not meta-trained; its step size is picked from a grid")
    check_baselines(profile, run)
    validations = _read(results, run)
    learner = Learner.of(profile, run)
    families = build_families(
        profile, learner.experiment, run.trained_on.split("+"), results, seed=run.seed
    )
    folder = results / LONGER_FOLDER
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
    """Write the checks of a run to ``trained.json`` in its folder.

    Raises:
        UsageError: as :func:`check`.
    """
    checks = [found._asdict() for found in check(profile, run, results)]
    content = manifest(profile.training_inputs(run), checks=checks)
    write_json(results / run.folder / "trained.json", content)


def tuned(learner: Learner, run: Run, families: dict[str, TaskFamily]) -> list[Validations]:
    """Meta-validate SGD and Adam at every step size of their grids.

    They get the learner's own objective and data.

    Returns:
        One entry per rule; its ``steps`` are step sizes.
    """
    found = []
    for rule in BASELINES:
        other = replace(learner, method=replace(METHODS[rule], outer=learner.method.outer))
        grid = learner.experiment.step_sizes[rule]
        metas = [{"step_size": torch.tensor(size, dtype=torch.float64)} for size in grid]
        validated = [validate(other, meta, run, families) for meta in metas]
        scores, errors, outer = (list(column) for column in zip(*validated, strict=True))
        found.append(Validations(grid, scores, errors, outer, math.nan))
    return found


def longer_profile(profile: Profile, run: Run) -> Profile:
    """Return the profile with :data:`LONGER` times the meta-batches for the run's method.

    Schedules and curricula stretch, because they follow the fraction of meta-batches done.
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
    """Link the images and victims of one result folder into another."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("data", "victims"):
        if (results / name).is_dir():
            with suppress(FileExistsError):  # Another job may be checking a run here.
                (folder / name).symlink_to((results / name).resolve(), target_is_directory=True)


def _read(results: Path, run: Run) -> Validations:
    """Read the meta-validations of a run; refuse one that diverged."""
    found = read_json(results / run.folder / "run.json", status=str)
    if found["status"] != "ok":
        raise UsageError(f"{results / run.folder}: this training {found['status']}: untrained")
    return Validations.of(read_history(results / run.folder / "history.csv"))
