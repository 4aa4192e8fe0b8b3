"""Provenance of the numbers: runs, times, machines, victims, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lft.config import Profile, Run
from lft.results.folder import Results
from lft.storage.json import read_json


def manifests(profile: Profile, results: Path) -> Iterator[dict[str, Any]]:
    """Yield the manifests of all existing meta-trainings."""
    for found in Results(profile, results).manifests():
        yield found.model_dump(mode="json") | {"run": found.run._asdict()}


def times(profile: Profile, manifests: list[dict[str, Any]]) -> Iterator[tuple[str, int, str]]:
    """Yield each experiment with the number of its meta-trainings and their total minutes."""
    for name in profile.experiments:
        seconds = [m["seconds"] for m in manifests if m["run"]["experiment"] == name]
        yield name, len(seconds), f"{sum(seconds) / 60:.1f}"


def run_row(profile: Profile, manifest: dict[str, Any]) -> dict[str, str]:
    """Return one meta-training as a row of the list."""
    run = Run(**manifest["run"])
    return {
        "path": f"{run.folder.as_posix()}/run.json",
        "name": " · ".join(
            (
                run.experiment,
                run.trained_on,
                profile.experiment(run.experiment).label(run.method),
                run.order,
                f"seed {run.seed}",
            )
        ),
        "status": manifest["status"],
        "seconds": f"{manifest['seconds']:.1f}",
        "device": manifest["device"],
    }


def provenance(manifests: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return facts about the runs, each distinct value once."""

    def once(values: Iterator[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values)) or "–"

    return [
        ("commit", once(m["commit"] for m in manifests)),
        ("with uncommitted changes", once(m["modified"] for m in manifests)),
        ("processor", once(m["machine"]["processor"] for m in manifests)),
        ("cores", once(m["machine"]["cores"] for m in manifests)),
        ("system", once(m["machine"]["system"] for m in manifests)),
        ("device", once(m["device"] for m in manifests)),
        ("kernels", once(m["kernel"] for m in manifests)),
        ("Python", once(m["python"] for m in manifests)),
        ("packages", once(f"{k} {v}" for m in manifests for k, v in m["versions"].items())),
    ]


def victims(profile: Profile, results: Path) -> Iterator[tuple[str, str, str]]:
    """Yield each source with its victims' mean accuracy on training and test images."""
    folder = Results(profile, results)
    for name, source in profile.sources.items():
        found = [
            read_json(path, accuracy_train=float, accuracy_test=float)
            for path in folder.victim_files(name)
        ]
        if found:
            train, test = (
                float(np.mean([victim[split] for victim in found]))
                for split in ("accuracy_train", "accuracy_test")
            )
            yield source.label, f"{train:.1%}", f"{test:.1%}"


def problems(cells: pd.DataFrame) -> list[dict[str, str]]:
    """Return the cells that diverged or are missing."""
    bad = cells[~cells["status"].isin(["ok", "not applicable"])]
    return records(bad.astype(str))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
