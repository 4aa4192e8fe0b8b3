"""Whether a meta-training was long enough and stable: four checks on its meta-validations.

An untrained method says nothing about the claims that it appears in. The checks are pure functions
of the content of ``history.csv``. :func:`recorded` runs those that a result folder allows;
:func:`lft.meta.trained.check` computes what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.paths import written
from lft.results.folder import Results
from lft.results.history import read_history
from lft.results.manifest import RunManifest

if TYPE_CHECKING:
    import pandas as pd

ROUNDS = 20
"""Fewest meta-validations for a choice among checkpoints."""

LONGER = 3
"""How many times as many meta-batches the rerun has that shows whether longer training helps."""

LONGER_FOLDER = Path("longer")
"""Folder of these reruns, below a result folder."""

EXPLODED = 10.0
"""A training is unstable above this multiple of the untrained start's loss."""


BASELINES = ("sgd", "adam")
"""Hand-designed optimizers that a meta-training must keep up with; keys of ``step_sizes``."""


class Check(NamedTuple):
    """The outcome of one check.

    Attributes:
        name: ``longer does not help``, ``the end is good``, ``stable`` or ``worth it``.
        passed: None if its input was not recorded, or there are too few meta-validations.
        value: the measured value.
        limit: largest value that passes.
    """

    name: str
    passed: bool | None
    value: float
    limit: float


class Validations(NamedTuple):
    """Meta-validations of one meta-training in order, without that of the untrained start.

    Attributes:
        steps: meta-batches done before each.
        scores: lower is better.
        errors: standard errors of the scores over meta-validation tasks.
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
        """Extract the meta-validations from the rows of a ``history.csv``."""
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
    """Return the smallest improvement of a meta-validation score that matters.

    That is 2 points of accuracy, or a loss lower by a factor of 1.1.

    Args:
        primary: the experiment's primary metric.
        score: the score to improve.
    """
    return 0.02 if primary == "accuracy" else score * (1 - 1 / 1.1)


def longer_does_not_help(validations: Validations, longer: Validations, smallest: float) -> Check:
    """Check that training :data:`LONGER` times as long, with a stretched schedule, barely helps.

    The rerun may improve the score by at most one standard error, and by at most the smallest
    effect of interest.

    Args:
        validations: the training.
        longer: its rerun.
        smallest: smallest effect of interest, in units of the score.
    """
    here, there = validations.best, longer.best
    gain = validations.scores[here] - longer.scores[there]
    limit = _least(validations.errors[here], smallest)
    return Check("longer does not help", _at_most(gain, limit), gain, limit)


def the_end_is_good(validations: Validations) -> Check:
    """Check that the best checkpoint is late, or that the last one is about as good.

    The best of at least :data:`ROUNDS` checkpoints lies in the last half, or the last one is worse
    by at most one standard error. Fewer checkpoints show nothing.
    """
    best = validations.best
    loss = validations.scores[-1] - validations.scores[best]
    late = validations.steps[best] > validations.steps[-1] / 2
    limit = validations.errors[-1]
    enough = len(validations.scores) >= ROUNDS
    passed = (late or _at_most(loss, limit)) if enough else None
    return Check("the end is good", passed, loss, limit)


def stable(validations: Validations) -> Check:
    """Check that the outer loss does not explode.

    After the first tenth, the uncapped outer loss of the meta-validation tasks stays below
    :data:`EXPLODED` times that of the untrained start, in 99 % of the meta-validations.
    """
    tenth = validations.steps[-1] / 10
    late = [f for k, f in zip(validations.steps, validations.outer, strict=True) if k > tenth]
    if math.isnan(validations.start):
        return Check("stable", None, math.nan, 0.01)
    exploded = sum(not f < EXPLODED * validations.start for f in late) / len(late)
    return Check("stable", exploded <= 0.01, exploded, 0.01)


def worth_it(validations: Validations, baselines: Sequence[Validations]) -> Check:
    """Check that the score is not behind the best hand-designed optimizer's by more than noise.

    Noise is one standard error of the difference. The optimizers are tuned on the same tasks from
    the same starts.

    Args:
        validations: the training.
        baselines: those of the hand-designed optimizers; at least one.
    """
    here = validations.best
    best = min(baselines, key=lambda other: other.scores[other.best])
    behind = validations.scores[here] - best.scores[best.best]
    limit = math.hypot(validations.errors[here], best.errors[best.best])
    return Check("worth it", _at_most(behind, limit), behind, limit)


def _at_most(value: float, limit: float) -> bool | None:
    """Compare; None where the limit was not recorded."""
    return None if math.isnan(limit) else value <= limit


def _least(*limits: float) -> float:
    """Return the smallest limit; NaN if one is unknown."""
    return math.nan if any(map(math.isnan, limits)) else min(limits)


def untrained(checks: Iterable[Check]) -> bool | None:
    """Return whether a meta-training fails the test for trained; None if too little is known.

    One failed check is enough. :func:`longer_does_not_help` and :func:`worth_it` may be missing,
    because they need more than the training itself.
    """
    outcomes = {check.name: check.passed for check in checks}
    if False in outcomes.values():
        return True
    if any(outcomes.get(name) is None for name in ("the end is good", "stable")):
        return None
    return False


def recorded(results: Results, run: Run) -> tuple[Check, ...]:
    """Return the checks of one run that its result folder allows.

    The run's own history decides the end and stability. Whether longer training helps needs a rerun
    in the folder ``longer``. A run has no checks if it is missing or diverged, or if its method is
    not meta-trained.

    Args:
        results: the result folder.
        run: the run to check.
    """
    experiment = results.profile.experiment(run.experiment)
    manifest = results.manifest(run)
    by_hand = experiment.base_method(run.method).learns == "step_size"
    if by_hand or manifest is None or manifest.status == "diverged":
        return ()
    own = _validations(results.folder / run.folder)
    if own is None:
        return ()
    found = (the_end_is_good(own), stable(own))
    longer = _rerun(results.folder / LONGER_FOLDER / run.folder, manifest)
    if longer is None:
        return found
    smallest = smallest_effect(experiment.primary, own.scores[own.best])
    return (*found, longer_does_not_help(own, longer, smallest))


def _rerun(folder: Path, of: RunManifest) -> Validations | None:
    """Return the longer training if it exists, did not diverge and was long enough."""
    if of.meta_batches is None or not (folder / "run.json").is_file():
        return None
    manifest = RunManifest.read(folder / "run.json")
    long_enough = manifest.meta_batches == LONGER * of.meta_batches
    return _validations(folder) if manifest.status == "ok" and long_enough else None


def _validations(folder: Path) -> Validations | None:
    """Return the meta-validations in a run's folder; None if it kept none."""
    path = folder / "history.csv"
    found = _read(path, written(path)) if path.is_file() else None
    return found if found and found.scores else None


@lru_cache(maxsize=4096)
def _read(path: Path, _written: tuple[int, int]) -> Validations:
    """Read a history that several tables need; read it again only if it was written again."""
    return Validations.of(read_history(path))


def checked(profile: Profile) -> list[Run]:
    """Return the runs that the workflow checks: all meta-trainings with the first seed.

    Raises:
        UsageError: an experiment has no step sizes for a baseline.
    """
    runs = [
        run
        for name, experiment in profile.experiments.items()
        for run in profile.own_runs(name)
        if run.seed == profile.seeds[0]
        if experiment.base_method(run.method).learns != "step_size"
    ]
    for run in runs:
        check_baselines(profile, run)
    return runs


def check_baselines(profile: Profile, run: Run) -> None:
    """Check that the baselines of a run can be tuned.

    Raises:
        UsageError: the run's settings have no step sizes for one.
    """
    for rule in BASELINES:
        if rule not in profile.experiment(run.experiment).for_method(run.method).step_sizes:
            raise UsageError(
                f"whether {run.method!r} keeps up with {rule} needs step sizes to try: give "
                f"experiment {run.experiment!r} the key 'step_sizes.{rule}'"
            )
