"""Reuse trained runs and victims of the kept run that a profile names with ``against``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.paths import CHECKOUT, victim_path
from lft.results.manifest import Manifest, RunManifest
from lft.results.schema import TRAINED
from lft.storage.atomic import atomic_path

SAME_WEIGHTS, RETRAINED = 0.001, 0.01
"""Largest difference of a victim's clean accuracy from the kept record, with the kept weights and
after training again. Rounding moves single images; a second training may sum in another order,
which moves more of them."""


def kept_folder(profile: Profile, results: Path) -> Path:
    """Find the result folder of the run that a profile is against.

    It is beside the profile's own folder, or in the checkout.

    Raises:
        UsageError: there is none.
    """
    name = str(profile.against)
    places = [results.absolute().parent / name]
    if CHECKOUT is not None:
        places.append(CHECKOUT / "results" / name)
    for place in places:
        if (place / "runs").is_dir():
            return place
    raise UsageError(f"against: {places[0]} keeps no runs; run the profile {name!r} first")


def take_trainings(profile: Profile, runs: Sequence[Run], results: Path) -> list[Run]:
    """Copy the trained runs that the kept run has.

    Args:
        profile: settings.
        runs: runs to train.
        results: the profile's result folder.

    Returns:
        The runs that remain to be trained.

    Raises:
        UsageError: the kept run lacks one of them, or made it under other settings.
    """
    for run in filter(profile.is_kept, runs):
        folder = kept_run(profile, run, results)
        for name in TRAINED:
            copy(folder / name, results / run.folder / name)
    return [run for run in runs if not profile.is_kept(run)]


def kept_run(profile: Profile, run: Run, results: Path) -> Path:
    """Find the folder of a kept run that was made under the profile's settings.

    Raises:
        UsageError: there is none, or it was made under other settings.
    """
    kept = kept_folder(profile, results)
    path = kept / run.folder / "run.json"
    if not path.is_file():
        raise UsageError(f"{kept} keeps no run {run.folder}; take seeds and methods that it has")
    if difference := RunManifest.read(path).difference(profile.training_inputs(run)):
        raise UsageError(f"{path} was trained with {difference}; take the kept run's settings")
    return path.parent


def copy(path: Path, target: Path) -> None:
    """Copy a kept file atomically.

    Raises:
        UsageError: the file is missing, or the target cannot be written.
    """
    if not path.is_file():
        raise UsageError(f"{path} was not kept; run that profile again")
    with atomic_path(target) as temporary:
        shutil.copyfile(path, temporary)


class KeptVictim(NamedTuple):
    """The files of a victim in a kept run.

    Attributes:
        record: its manifest, with its clean accuracy.
        weights: None where they were not kept, so that the victim is trained again.
    """

    record: Path
    weights: Path | None

    def check(self, accuracy: Mapping[str, float]) -> None:
        """Compare a victim's clean accuracy with the kept record.

        Args:
            accuracy: share of correct images of ``train`` and ``test``.

        Raises:
            UsageError: they differ by more than rounding.
        """
        limit = RETRAINED if self.weights is None else SAME_WEIGHTS
        found = Manifest.read(self.record).model_dump()
        for split, ours in accuracy.items():
            theirs = float(found.get(f"accuracy_{split}", "nan"))
            if not abs(ours - theirs) <= limit:
                raise UsageError(
                    f"the victim classifies {ours:.2%} of the {split} images correctly, that of "
                    f"{self.record} {theirs:.2%}: other images; take those of the kept run"
                )


def kept_victim(
    profile: Profile, source: str, results: Path, seed: int | None
) -> KeptVictim | None:
    """Find the kept files of a victim; None if the profile is against no run.

    Args:
        profile: settings.
        source: image source.
        results: the profile's result folder.
        seed: the victim's seed; None for a victim of all seeds.

    Raises:
        UsageError: the kept run has no record of it, or made it under other settings.
    """
    if profile.against is None:
        return None
    folder = kept_folder(profile, results)
    own, shared = (victim_path(folder, source, whose) for whose in (seed, None))
    weights = own if own.with_suffix(".json").is_file() else shared
    record = weights.with_suffix(".json")
    if not record.is_file():
        raise UsageError(f"{folder} keeps no record {own.with_suffix('.json').name} of a victim")
    if difference := Manifest.read(record).difference(profile.victim_inputs(source)):
        raise UsageError(f"{record} was trained with {difference}; take the kept run's settings")
    return KeptVictim(record, weights if weights.is_file() else None)
