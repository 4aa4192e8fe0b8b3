"""What a profile takes over from the kept run that it is against, instead of training it."""

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
"""How much a victim's clean accuracy may differ from the kept record: rounding moves single images;
a second training, whose sums may have another order, moves more of them."""


def kept_folder(profile: Profile, results: Path) -> Path:
    """The result folder of the run that a profile is against: beside its own, or the checkout's.

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
    """Copy what the kept run trained; the runs that are left to train.

    Raises:
        UsageError: the kept run lacks one of them, or made it under other settings.
    """
    for run in filter(profile.is_kept, runs):
        folder = kept_run(profile, run, results)
        for name in TRAINED:
            copy(folder / name, results / run.folder / name)
    return [run for run in runs if not profile.is_kept(run)]


def kept_run(profile: Profile, run: Run, results: Path) -> Path:
    """The folder of a run that is kept, made under the profile's settings.

    Raises:
        UsageError: there is none, or it was made under others.
    """
    kept = kept_folder(profile, results)
    path = kept / run.folder / "run.json"
    if not path.is_file():
        raise UsageError(f"{kept} keeps no run {run.folder}; take seeds and methods that it has")
    if difference := RunManifest.read(path).difference(profile.training_inputs(run)):
        raise UsageError(f"{path} was trained with {difference}; take the kept run's settings")
    return path.parent


def copy(path: Path, target: Path) -> None:
    """Copy a kept file, atomically.

    Raises:
        UsageError: it is missing, or the target cannot be written.
    """
    if not path.is_file():
        raise UsageError(f"{path} was not kept; run that profile again")
    with atomic_path(target) as temporary:
        shutil.copyfile(path, temporary)


class KeptVictim(NamedTuple):
    """What a kept run has of a victim.

    Attributes:
        record: its manifest, with its clean accuracy.
        weights: None where they were not kept, so that it is trained again.
    """

    record: Path
    weights: Path | None

    def check(self, accuracy: Mapping[str, float]) -> None:
        """Compare the share of correct ``train`` and ``test`` images with the record.

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
    """What the kept run has of a victim; None if the profile is against none.

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
