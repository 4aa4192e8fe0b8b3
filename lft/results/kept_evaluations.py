"""Reuse measurements of the kept run that a profile names with ``against``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.results.digests import record
from lft.results.folder import evaluation_file, rows_of
from lft.results.kept import copy, kept_folder, kept_run
from lft.results.schema import EVALUATED, Measurement
from lft.storage.atomic import atomic_path


def take_evaluations(profile: Profile, runs: Iterable[Run], results: Path) -> list[Run]:
    """Copy the measurements that the kept run has.

    Args:
        profile: settings.
        runs: runs to measure.
        results: the profile's result folder.

    Returns:
        The runs that remain to be measured.

    Raises:
        UsageError: the kept run lacks one of them, or made it under other settings.
    """
    runs = list(runs)
    for run in filter(profile.is_kept, runs):
        folder, kept = kept_run(profile, run, results), kept_folder(profile, results)
        measured = evaluation_file(kept, run, "measurements.csv")
        pictures = evaluation_file(kept, run, "examples.safetensors")
        if measured is None or pictures is None:
            raise UsageError(f"{folder} keeps no measurements; run that profile again")
        with atomic_path(results / run.folder / "measurements.csv") as temporary:
            header = ",".join(Measurement._fields).encode() + b"\n"
            temporary.write_bytes(header + rows_of(measured, [run])[1])
        copy(pictures, results / run.folder / "examples.safetensors")
        record(results / run.folder, EVALUATED, anew=True)
    return [run for run in runs if not profile.is_kept(run)]
