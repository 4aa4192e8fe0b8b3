"""Every job of a profile, in the order in which the workflow would run them, in one process."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from lft.config import AttackFamily, Profile
from lft.data import prepare
from lft.meta.evaluate import evaluate
from lft.meta.train import train
from lft.paths import data_path, victim_path
from lft.report.alternatives import write_alternatives
from lft.report.claims import write_claims
from lft.report.figures import draw_figures
from lft.report.page import write_page
from lft.report.tables import write_tables
from lft.results.aggregate import aggregate
from lft.tasks.build import make_victim
from lft.theory import measure


def measure_all(profile: Profile, results: Path) -> None:
    """From images to measurements; images that are there already stay."""
    prepare_sources(profile, results)
    for name in profile.experiments:
        runs = list(profile.runs(name))
        for run in runs:
            train(profile, run, results)
        first_seed = [run for run in runs if run.seed == profile.seeds[0]]
        for evaluation in dict.fromkeys(map(profile.evaluation, first_seed)):
            evaluate(profile, evaluation, results)
    for name in profile.theory_experiments:
        measure(profile, name, results)
    aggregate(profile, results)


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


def prepare_sources(profile: Profile, results: Path) -> None:
    """Images, and the victims of those that are attacked."""
    attacked = {
        family.source
        for experiment in profile.experiments.values()
        for family in experiment.families.values()
        if isinstance(family, AttackFamily)
    }
    for name, source in profile.sources.items():
        if not data_path(results, name).exists():
            prepare(source, data_path(results, name))
        if name in attacked and not victim_path(results, name).exists():
            make_victim(profile, name, results)
