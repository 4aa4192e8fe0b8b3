"""Compute one universe of the multiverse, from settings to measurements, in one process."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from lft.config import Profile, Run, digest
from lft.data import prepare
from lft.errors import NotApplicable
from lft.meta import train as training
from lft.meta.evaluate import evaluate_runs
from lft.meta.learner import Learner
from lft.paths import data_path, victim_path
from lft.results.aggregate import summarise
from lft.results.folder import Results
from lft.results.manifest import RunManifest, manifest
from lft.results.schema import Measurement
from lft.results.universes import (
    UNIVERSE_COLUMNS,
    Universe,
    draws,
    searched,
    universe_path,
    values,
    variant,
)
from lft.runtime.device import settings
from lft.storage.csv import read_rows, write_rows
from lft.storage.json import write_json
from lft.tasks.build import Context, Families, make_victim

log = logging.getLogger(__name__)


def run_universe(
    profile: Profile, universe: Universe, results: Path, *, keep: bool = False
) -> None:
    """Compute a universe and write its measurements and manifest.

    Trains every method with each of its draws, on the universe's first seed. The draw with the best
    meta-validation score is measured, and trained and measured again on a second seed if there is
    one. After an interruption, finished trainings are not repeated. Divergence and incompatible
    levels are recorded as outcomes.

    Args:
        profile: settings, with a section ``universes``.
        universe: the universe to compute.
        results: the profile's result folder; all universes share its images and victims.
        keep: keep the runs' folders, with weights, beside the measurements.

    Raises:
        UsageError: images cannot be prepared.
        Interrupted: SIGTERM or SIGINT arrived; finished trainings are kept.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    path = universe_path(results, universe.experiment, universe.number)
    work = path.with_suffix("")
    chosen: dict[str, int] = {}
    reasons: dict[str, str] = {}
    try:
        found = searched(profile, universe)
    except NotApplicable as refusal:
        rows, reasons = [_nothing(universe, "not applicable")], {"universe": str(refusal)}
    else:
        _prepare(found, results, work)
        folder = Results(found, work)
        chosen, measured, reasons = _train(profile, universe, folder)
        evaluate_runs(found, measured, work)
        rows = list(_rows(profile, universe, folder, measured))
    write_rows(path, UNIVERSE_COLUMNS, rows)
    tried = {method: draws(profile, universe, method) for method in chosen}
    best = {method: tried[method][number - 1] for method, number in chosen.items()}
    facts = {
        "experiment": universe.experiment,
        "number": universe.number,
        "levels": dict(universe.levels),
        "changes": dict(universe.changes),
        "seeds": list(universe.seeds),
        "draws": tried,
        "chosen": best,
        "reasons": reasons,
        "seconds": round(time.perf_counter() - began, 3),
        "cpu_seconds": round(time.process_time() - cpu_began, 3),
    }
    write_json(path.with_suffix(".json"), manifest(values(profile, universe), **facts))
    if not keep:
        shutil.rmtree(work, ignore_errors=True)


# ---------------------------------------------------------------- images and victims


def _prepare(found: Profile, results: Path, work: Path) -> None:
    """Prepare the shared images, and victims for these settings, and link them into ``work``."""
    work.mkdir(parents=True, exist_ok=True)
    for source, images in found.sources.items():
        path = data_path(results, source)
        with _lock(path):
            if not path.is_file():
                prepare(images, path)
    _link(work / "data", results / "data")
    attacked = {
        family.victim_source
        for experiment in found.experiments.values()
        for family in experiment.families.values()
        if family.victim_source is not None
    }
    if attacked:
        same = digest({source: found.victim_inputs(source) for source in sorted(attacked)})[:12]
        _link(work / "victims", results / "victims" / same)
    for source in sorted(attacked):
        for seed in found.victim_seeds:
            path = victim_path(work, source, seed)
            with _lock(path):
                if not path.with_suffix(".json").is_file():
                    make_victim(found, source, work, seed)


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"))


def _link(link: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(target.resolve(), target_is_directory=True)


# ---------------------------------------------------------------- training


def _train(
    profile: Profile, universe: Universe, folder: Results
) -> tuple[dict[str, int], list[Run], dict[str, str]]:
    """Train every method and choose its draw.

    Returns:
        The chosen draw of each method, counted from 1; the runs to measure; and the reason of each
        run that diverged.
    """
    planned, found = profile.experiment(universe.experiment), folder.profile
    chosen: dict[str, int] = {}
    measured: list[Run] = []
    with settings(found) as device:
        families = Families(Context(found, folder.folder, device))
        for method in planned.methods:
            first = {
                number: _runs(found, universe, variant(method, number), universe.seeds[0])
                for number in range(1, len(draws(profile, universe, method)) + 1)
            }
            scores = {
                number: [_trained(folder, families, run) for run in runs]
                for number, runs in first.items()
            }
            chosen[method] = best_draw({n: list(map(_score, of)) for n, of in scores.items()})
            measured += first[chosen[method]]
            for seed in universe.seeds[1:]:
                again = _runs(found, universe, variant(method, chosen[method]), seed)
                for run in again:
                    _trained(folder, families, run)
                measured += again
    failed = {run: folder.trained(run) for run in measured}
    reasons = {str(run.folder): m.reason for run, m in failed.items() if m.status != "ok"}
    return chosen, [run for run in measured if failed[run].status == "ok"], reasons


def _runs(found: Profile, universe: Universe, name: str, seed: int) -> list[Run]:
    return [
        run for run in found.runs(universe.experiment) if run.method == name and run.seed == seed
    ]


def _trained(folder: Results, families: Families, run: Run) -> RunManifest:
    """Return the manifest of a run, after training it if necessary."""
    profile, path = folder.profile, folder.folder / run.folder / "run.json"
    wanted = profile.training_inputs(run)
    if not path.is_file() or RunManifest.read(path).difference(wanted):
        learner = Learner.of(profile, run)
        of_run = families.of(learner.experiment, run.trained_on.split("+"), run.seed)
        training._train(profile, run, learner, of_run, folder.folder, None)
    return folder.trained(run)


def _score(found: RunManifest) -> float:
    score = found.validation_score
    return math.inf if found.status != "ok" or score is None else score


def best_draw(scores: Mapping[int, list[float]]) -> int:
    """Choose the draw that does best on meta-validation tasks.

    A draw has one run per gradient order and training mixture. Fewest diverged runs wins; ties go
    to the lowest sum of scores, each relative to the best score of that run over all draws.

    Args:
        scores: draw -> one score per run; lower is better, infinite if the run diverged.
    """
    table = pd.DataFrame(dict(scores)).T
    diverged = (~table.map(math.isfinite)).sum(axis=1)
    least = table.min()
    relative = (table - least).div(least.abs().clip(lower=1e-12)).where(table.map(math.isfinite), 0)
    order = pd.DataFrame({"diverged": diverged, "score": relative.sum(axis=1)})
    return int(order.sort_values(["diverged", "score"], kind="stable").index[0])


# ---------------------------------------------------------------- measurements


def _rows(
    profile: Profile, universe: Universe, folder: Results, measured: list[Run]
) -> Iterator[tuple[Any, ...]]:
    """Yield rows of :data:`lft.results.universes.UNIVERSE_COLUMNS`."""
    planned = profile.experiment(universe.experiment)
    of_cell = {run._replace(method=run.method.rpartition("-")[0]): run for run in measured}
    cells = product(planned.train_on, planned.methods, planned.orders, universe.seeds)
    for trained_on, method, order, seed in cells:
        cell = Run(universe.experiment, trained_on, method, order, seed)
        means = _means(folder, of_cell[cell]) if cell in of_cell else None
        for tested_on in planned.test_on:
            named = (seed, method, order, trained_on, tested_on)
            if folder.profile.why_not(cell._replace(method=variant(method, 1)), tested_on):
                yield (*named, *_empty("not applicable"))
            elif means is None:
                yield (*named, *_empty("diverged"))
            else:
                rows = means[means["tested_on"].astype(str) == tested_on]
                for row in rows.itertuples(index=False):
                    yield (*named, "ok", row.metric, row.step, row.mean, row.tasks)


def _means(folder: Results, run: Run) -> pd.DataFrame:
    path = folder.measurement_file(run)
    assert path is not None
    return summarise(read_rows(path, Measurement._fields))


def _empty(status: str) -> tuple[str, str, int, float, int]:
    return status, "–", 0, math.nan, 0


def _nothing(universe: Universe, status: str) -> tuple[Any, ...]:
    """Return the single row of a universe whose levels are incompatible."""
    return (universe.seeds[0], "–", "–", "–", "–", *_empty(status))
