"""Measurements of the paper's theory: Statement 1, Theorem 1 and the remark on vanishing gradients.

docs/theory.md derives the measured quantities.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lft.config import Profile
from lft.errors import UsageError
from lft.kernels.build import used
from lft.paths import theory_path
from lft.results.folder import Results
from lft.results.manifest import manifest
from lft.results.schema import THEORY_COLUMNS
from lft.runtime.device import settings
from lft.storage.csv import write_rows
from lft.storage.json import write_json
from lft.theory import statement1, theorem1, vanishing


def measure(profile: Profile, experiment: str, seed: int, results: Path) -> None:
    """Write rows of THEORY_COLUMNS and their manifest to :func:`lft.paths.theory_path`.

    Args:
        profile: settings.
        experiment: name of the experiment.
        seed: seed of the trained runs to measure.
        results: the profile's result folder.

    Raises:
        UsageError: the profile lacks the experiment or the seed, or measures no theory there; a run
            that the measurement needs is missing or was trained under other settings; or a task
            family cannot be measured.
    """
    profile.experiment(experiment)
    if experiment not in profile.theory_experiments:
        raise UsageError(
            f"the theory is not measured in {experiment!r}; name it in theory.gap.experiments or "
            "theory.vanishing.experiments"
        )
    if seed not in profile.seeds:
        raise UsageError(f"seed {seed} is not in profile {profile.name!r}")
    began = time.perf_counter()
    profile = profile.model_copy(update={"seeds": (seed,)})
    for run in profile.theory_runs(experiment):
        Results(profile, results).trained(run)
    path = theory_path(results, experiment, seed)
    with settings(profile):
        write_rows(path, THEORY_COLUMNS, _rows(profile, experiment, seed, results))
    write_json(
        path.with_suffix(".json"),
        manifest(
            profile.theory_inputs(experiment),
            experiment=experiment,
            seed=seed,
            seconds=round(time.perf_counter() - began, 3),
            device=profile.device,
            kernel=used(profile.kernel, profile.device),
        ),
    )


def _rows(profile: Profile, experiment: str, seed: int, results: Path) -> Iterator[tuple[Any, ...]]:
    if experiment in profile.theory.gap.experiments:
        yield from statement1.measure(profile, experiment, seed, results)
        yield from theorem1.measure(profile, experiment, seed, results)
    if experiment in profile.theory.vanishing.experiments:
        yield from vanishing.measure(profile, experiment, seed, results)
