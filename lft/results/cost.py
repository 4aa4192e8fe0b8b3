"""Core- and GPU-hours of a profile: measured, or predicted from another run."""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from lft.config import FamilySettings, Profile, Run
from lft.errors import UsageError
from lft.results import jobs as planned
from lft.results.folder import Results
from lft.results.jobs import ON_DEVICE, Job

UPDATE = 3
"""Cost of a meta-training step, in steps without differentiation."""


class Spent(NamedTuple):
    """Time and memory of jobs.

    Attributes:
        jobs: number of jobs.
        core_hours: their sum.
        gpu_hours: their sum.
        longest: hours of the longest job.
        gigabytes: memory of the largest job.
    """

    jobs: int = 0
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    longest: float = 0.0
    gigabytes: float = 0.0


def measured(profile: Profile, results: Path) -> dict[Job, Spent]:
    """Read the cost of the profile's finished jobs from Snakemake's benchmark files.

    Args:
        profile: settings.
        results: the profile's result folder.

    Raises:
        UsageError: no job has run, a file is damaged, or a run was made under other settings.
    """
    list(Results(profile, results).manifests())
    paths = {job: results / job.benchmark for job in _as_run(jobs(profile), results)}
    found = {job: _read(path, job, profile) for job, path in paths.items() if path.is_file()}
    if not found:
        raise UsageError(
            f"no job of profile {profile.name} has run in {results}; run snakemake reproduce first"
        )
    return found


def expected(profile: Profile, base: dict[Job, Spent]) -> tuple[dict[Job, Spent], list[Job]]:
    """Predict the cost of a profile's jobs from measured jobs.

    A job costs its work times the price per work of the measured jobs of its group or, without any,
    of its rule and experiment. Its memory is that of the largest of these.

    Args:
        profile: the profile to predict.
        base: measured jobs, of this profile or another.

    Returns:
        The predicted costs, and the jobs that resemble no measured job.
    """
    prices: dict[tuple[str, ...], list[tuple[Job, Spent]]] = defaultdict(list)
    for job, spent in base.items():
        for group in {_group(job), _kin(job)}:
            prices[group].append((job, spent))
    found, unknown = {}, []
    for job in jobs(profile):
        like = prices.get(_group(job)) or prices.get(_kin(job))
        if not like:
            unknown.append(job)
            continue
        share = job.work / sum(other.work for other, _ in like)
        total = _sum(spent for _, spent in like)
        hours = total.core_hours * share
        gpu = total.gpu_hours * share
        found[job] = Spent(1, hours, gpu, gpu or hours / profile.threads, total.gigabytes)
    return found, unknown


def as_table(title: str, spent: dict[Job, Spent], unknown: list[Job]) -> Table:
    """Tabulate hours by rule and in total, for a terminal.

    Args:
        title: title of the table.
        spent: cost of each job.
        unknown: jobs without a cost; the caption names them.
    """
    table = Table(title=escape(title))
    headings = ("rule", "jobs", "core-hours", "GPU-hours", "longest job, h", "largest job, GB")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    rules = dict.fromkeys(job.rule for job in spent)
    for rule in rules:
        table.add_row(rule, *_cells(_sum(s for job, s in spent.items() if job.rule == rule)))
    table.add_section()
    table.add_row("all", *_cells(_sum(spent.values())))
    if unknown:
        names = sorted({" ".join(_group(job)) for job in unknown})
        table.caption = escape(
            f"Without {len(unknown)} jobs that resemble no measured job: {names}"
        )
    return table


def jobs(profile: Profile) -> Iterator[Job]:
    """Yield every job that Snakemake would submit for a profile, with its work."""
    for job in planned.jobs(profile):
        yield job._replace(work=_work(profile, job))


def _as_run(planned_now: Iterable[Job], results: Path) -> Iterator[Job]:
    """Yield the jobs as they were run.

    Versions before 0.2 ran one job for all seeds. Such a job replaces the jobs of its seeds if it
    has a benchmark file and they have none.
    """
    groups: dict[tuple[str, ...], list[Job]] = defaultdict(list)
    for job in planned_now:
        groups[_group(job)].append(job)
    for (rule, *name), parts in groups.items():
        together = Job(rule, tuple(name), work=sum(job.work for job in parts))
        apart = any((results / job.benchmark).is_file() for job in parts)
        yield from parts if apart or not (results / together.benchmark).is_file() else [together]


def _work(profile: Profile, job: Job) -> float:
    """Estimate a job's work; only ratios between jobs of one kind matter."""
    if job.rule == "train":
        return sum(training_work(profile, run) for run in job.runs)
    if job.rule == "evaluate":
        return sum(_evaluation_work(profile, run) for run in job.runs)
    if job.rule == "theory":
        return _theory_work(profile, job.name[0])
    if job.rule == "victim":
        return profile.victims.epochs or 1
    return _rows(profile) if job.rule == "aggregate" else 1.0


def _rows(profile: Profile) -> float:
    """Return a number proportional to the rows of all measurements."""
    found = 0.0
    for name, experiment in profile.experiments.items():
        testing = experiment.testing
        tested = sum(len(profile.tested_families(run)) for run in profile.runs(name))
        found += testing.tasks * testing.steps * tested
    return found


def training_work(profile: Profile, run: Run) -> float:
    """Estimate the work of a meta-training, in coordinates times fine-tuning steps.

    A zeroth-order step counts once per direction.

    Args:
        profile: settings.
        run: the run to train.
    """
    experiment = profile.experiment(run.experiment).for_method(run.method)
    method = profile.experiment(run.experiment).base_method(run.method)
    training, names = experiment.training, run.trained_on.split("+")
    validation = training.validation.tasks * training.steps * len(names)
    size = sum(_coordinates(profile, experiment.families[name]) for name in names) / len(names)
    if method.learns == "step_size":
        grid = experiment.step_sizes[method.tuner]
        return size * len(grid) * validation * _directions(profile, run)
    plan = training if method.learns_finetuner else experiment.descent
    steps = plan.epochs * training.tasks * plan.steps
    return (
        size
        * (UPDATE * steps + training.validation.rounds * validation)
        * _directions(profile, run)
    )


def _evaluation_work(profile: Profile, run: Run) -> float:
    experiment = profile.experiment(run.experiment).for_method(run.method)
    tested = [m.split("+") for m in experiment.test_on if profile.why_not(run, m) is None]
    size = sum(
        _coordinates(profile, experiment.families[name]) / len(names)
        for names in tested
        for name in names
    )
    steps = experiment.testing.tasks * experiment.testing.steps
    return size * steps * _directions(profile, run)


def _theory_work(profile: Profile, name: str) -> float:
    experiment, gap, vanishing = (
        profile.experiment(name), profile.theory.gap, profile.theory.vanishing,
    )  # fmt: skip
    names = profile.theory_families(name)
    size = sum(_coordinates(profile, experiment.families[family]) for family in names)
    steps = 0
    if name in gap.experiments:
        steps += gap.tasks * gap.draws * sum(gap.steps) * sum(gap.sizes)
    if name in vanishing.experiments:
        steps += vanishing.tasks * sum(vanishing.steps)
    return size * steps


def _directions(profile: Profile, run: Run) -> int:
    """Return the loss evaluations of a zeroth-order gradient; 1 for first order."""
    return (
        profile.experiment(run.experiment).zeroth_order.directions if run.order == "zeroth" else 1
    )


def _coordinates(profile: Profile, family: FamilySettings) -> int:
    """Count the parameters of an optimizee; sizes that depend on the images count as 1."""
    shapes = profile.shapes(family).values()
    return sum(math.prod(n for n in shape if isinstance(n, int)) for shape in shapes)


def _group(job: Job) -> tuple[str, ...]:
    """Return what jobs share that differ only in their seed; they have one price per work."""
    return (job.rule, *(part for part in job.name if not re.fullmatch(r"seed\d+", part)))


def _kin(job: Job) -> tuple[str, ...]:
    """Return a job's rule and experiment."""
    return (job.rule, *job.name[:1])


def _sum(parts: Iterable[Spent]) -> Spent:
    """Add up costs; an empty input gives zero."""
    jobs, cores, gpus, longest, gigabytes = zip(*(Spent(), *parts), strict=True)
    return Spent(sum(jobs), sum(cores), sum(gpus), max(longest), max(gigabytes))


def _read(path: Path, job: Job, profile: Profile) -> Spent:
    """Read one benchmark file.

    On a CPU, only the seconds in which the job computed count, not those in which it waited for a
    busy machine. On a GPU, all seconds count.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        seconds = float(row["s"])
        # Snakemake writes NA for a job that ended before the first sample.
        load = float(row["mean_load"]) / 100 if row["mean_load"] != "NA" else profile.threads
        gigabytes = float(row["max_rss"]) / 1024 if row["max_rss"] != "NA" else 0.0
    except (OSError, StopIteration, KeyError, TypeError, ValueError):
        raise UsageError(
            f"{path} is no benchmark file of Snakemake; delete it, and its job counts as not run"
        ) from None
    if profile.device.startswith("cuda") and job.rule in ON_DEVICE:
        hours = seconds / 3600
        return Spent(1, hours * profile.threads, hours, hours, gigabytes)
    return Spent(1, seconds * load / 3600, 0.0, seconds / 3600, gigabytes)


def _cells(spent: Spent) -> list[str]:
    return [
        f"{spent.jobs:,}",
        *(
            f"{value:,.3f}" if value < 10 else f"{value:,.0f}"
            for value in (spent.core_hours, spent.gpu_hours, spent.longest)
        ),
        f"{spent.gigabytes:.1f}",
    ]
