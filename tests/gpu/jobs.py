"""Every job of a profile, in the order in which the workflow would run them, in one process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from lft.config import Profile
from lft.data import prepare
from lft.meta.evaluate import evaluate_runs
from lft.meta.train import train_seeds
from lft.paths import data_path, victim_path
from lft.report.alternatives import write_alternatives
from lft.report.claims import write_claims
from lft.report.figures import draw_figures
from lft.report.page import write_page
from lft.report.tables import write_tables
from lft.results.aggregate import aggregate
from lft.results.jobs import Job, jobs
from lft.tasks.build import make_victim
from lft.theory import measure


def measure_all(profile: Profile, results: Path) -> None:
    """From images to measurements."""
    for job in jobs(profile):
        if job.rule in DONE:
            DONE[job.rule](profile, job, results)


def prepare_sources(profile: Profile, results: Path) -> None:
    """Images and victims only; those that are there stay."""
    for job in jobs(profile):
        path = {"data": data_path, "victim": victim_path}.get(job.rule)
        if path and not path(results, job.name[0]).exists():
            DONE[job.rule](profile, job, results)


def _data(profile: Profile, job: Job, results: Path) -> None:
    prepare(profile.sources[job.name[0]], data_path(results, job.name[0]))


def _victim(profile: Profile, job: Job, results: Path) -> None:
    make_victim(profile, job.name[0], results, _seed(job))


def _theory(profile: Profile, job: Job, results: Path) -> None:
    seed = _seed(job)
    assert seed is not None
    measure(profile, job.name[0], seed, results)


def _seed(job: Job) -> int | None:
    return int(job.name[1].removeprefix("seed")) if len(job.name) > 1 else None


DONE: dict[str, Callable[[Profile, Job, Path], None]] = {
    "data": _data,
    "victim": _victim,
    "train": lambda profile, job, results: train_seeds(profile, job.runs, results),
    "evaluate": lambda profile, job, results: evaluate_runs(profile, job.runs, results),
    "theory": _theory,
    "aggregate": lambda profile, job, results: aggregate(profile, results),
}
"""What each rule of the workflow does, up to the report."""


def report(profile: Profile, results: Path) -> None:
    """Tables, figures and, where what it needs is installed, the page."""
    write_tables(profile, results)
    write_claims(profile, results)
    write_alternatives(profile, results)
    draw_figures(profile, results)
    if find_spec("vl_convert"):
        write_page(profile, results)
    else:
        logging.warning("without vl_convert there is no report.html")
