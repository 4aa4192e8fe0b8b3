"""The jobs of the workflow: names, outputs and settings.

The rules in workflow/rules and the commands of :mod:`lft.cli` share this module, so that every path
and digest is defined once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lft.config import ALL, Profile, Run, digest, find_profile
from lft.errors import UsageError, suggestion
from lft.paths import data_path, theory_path, victim_path
from lft.results import universes
from lft.results.schema import EVALUATED, TRAINED

ON_DEVICE = ("victim", "train", "evaluate", "theory", "universe")
"""Rules that compute on the profile's device."""
REPORT = {
    "aggregate": "measurements.csv",
    "tables": "claims.json",
    "figures": "figures",
    "page": "report.html",
}
"""Steps of the report, each with one of its outputs."""
MULTIVERSE = "multiverse.html"
"""Last output of the report on all universes."""
CONFIG = ("profile", "claim")
"""Keys that Snakemake's ``--config`` accepts."""


class Job(NamedTuple):
    """One job of the workflow.

    Attributes:
        rule: rule of the workflow, and command of ``lft``.
        name: experiment, mixture and so on; with ``rule`` it names the log and the benchmark file.
        runs: runs that the job trains or measures.
        work: estimated cost in arbitrary units, see docs/cluster.md.
    """

    rule: str
    name: tuple[str, ...]
    runs: tuple[Run, ...] = ()
    work: float = 1.0

    @property
    def log(self) -> Path:
        """Path of the job's log, below a result folder."""
        return self._file("logs", ".log")

    @property
    def benchmark(self) -> Path:
        """Path of Snakemake's record of time and memory, below a result folder."""
        return self._file("benchmarks", ".tsv")

    def _file(self, folder: str, suffix: str) -> Path:
        path = Path(folder, self.rule, *self.name)
        return path.with_name(path.name + suffix)


def jobs(profile: Profile) -> Iterator[Job]:
    """Yield every job that Snakemake would submit for a profile."""
    if profile.universes is not None:
        yield from (Job("data", (source,)) for source in profile.sources)
        yield from (Job("universe", (name, str(n))) for name, n in universes.names(profile))
        yield Job("multiverse", ())
        return
    attacked = {
        family.victim_source
        for experiment in profile.experiments.values()
        for family in experiment.families.values()
    }
    for source in profile.sources:
        yield Job("data", (source,))
        for seed in profile.victim_seeds if source in attacked else ():
            yield Job("victim", (source,) if seed is None else (source, f"seed{seed}"))
    yield from trainings(profile)
    yield from evaluations(profile)
    for name in profile.theory_experiments:
        for seed in profile.seeds:
            yield Job("theory", (name, f"seed{seed}"))
    for rule in REPORT:
        yield Job(rule, ())


def trainings(profile: Profile) -> Iterator[Job]:
    """Yield the jobs that meta-train, each with its runs."""
    yield from _grouped(profile, "train", every_method=False)


def evaluations(profile: Profile) -> Iterator[Job]:
    """Yield the jobs that measure, each with its runs."""
    yield from _grouped(profile, "evaluate", every_method=profile.methods_per_job == "all")


def _grouped(profile: Profile, rule: str, *, every_method: bool) -> Iterator[Job]:
    groups: dict[tuple[str, ...], list[Run]] = {}
    for experiment in profile.experiments:
        for run in profile.own_runs(experiment):
            named = run._replace(method=ALL) if every_method else run
            path = named.folder if profile.seeds_per_job == "one" else named.evaluation_folder
            groups.setdefault(path.parts[1:], []).append(run)
    for name, runs in groups.items():
        yield Job(rule, name, tuple(runs))


def files(runs: Iterable[Run], names: Iterable[str]) -> list[str]:
    """Return paths of some runs' files, below a result folder.

    Args:
        runs: the runs.
        names: file names, for example :data:`~lft.results.schema.TRAINED`.
    """
    names = list(names)
    return [(run.folder / name).as_posix() for run in runs for name in names]


def outputs(job: Job) -> list[str]:
    """Return a job's outputs, below a result folder; for a step of the report, one of them."""
    if job.rule == "train":
        return files(job.runs, TRAINED)
    if job.rule == "evaluate":
        return files(job.runs, EVALUATED)
    if job.rule in REPORT:
        return [REPORT[job.rule]]
    if job.rule == "multiverse":
        return [MULTIVERSE]
    if job.rule == "universe":
        return [universes.universe_path(Path(), job.name[0], job.name[1]).as_posix()]
    what, seed = job.name[0], "".join(job.name[1:]).removeprefix("seed")
    paths = {
        "data": data_path(Path(), what),
        "victim": victim_path(Path(), what, seed or None),
        "theory": theory_path(Path(), what, seed),
    }
    return [paths[job.rule].as_posix()]


def planned(profile: Profile, rule: str, what: str = "", runs: Iterable[Run] = ()) -> str:
    """Return a digest of the settings that a job depends on.

    Args:
        profile: settings.
        rule: rule of the job.
        what: the image source of ``data`` and ``victim``, the experiment of ``theory`` and
            ``universe``.
        runs: the runs of ``train`` and ``evaluate``.
    """
    settings: Mapping[str, Any]
    if rule == "data":
        settings = profile.sources[what].model_dump(mode="json")
    elif rule == "victim":
        settings = profile.victim_inputs(what)
    elif rule == "train":
        settings = {run.folder.as_posix(): profile.training_inputs(run) for run in runs}
    elif rule == "evaluate":
        settings = {run.folder.as_posix(): profile.evaluation_inputs(run) for run in runs}
    elif rule == "theory":
        settings = profile.theory_inputs(what)
    elif rule == "universe":
        settings = universes.inputs(profile, what)
    else:
        settings = profile.model_dump(mode="json")
    return digest(settings)


def arguments(rule: str, runs: Iterable[Run]) -> str:
    """Return the arguments of ``lft`` that train or measure some runs.

    Args:
        rule: ``train`` or ``evaluate``.
        runs: runs of one cell, or of all methods of a mixture.
    """
    runs = list(runs)
    methods = dict.fromkeys(run.method for run in runs)
    method = next(iter(methods)) if len(methods) == 1 else ALL
    seeds = " ".join(f"--seed {seed}" for seed in dict.fromkeys(run.seed for run in runs))
    first = runs[0]
    return f"{rule} {first.experiment} {first.trained_on} {method} --order {first.order} {seeds}"


def profile_of(config: Mapping[str, Any], files: Iterable[Path | str]) -> Path:
    """Find the profile that Snakemake's ``--config`` names.

    Args:
        config: the given values; besides the profile they may name a claim.
        files: files given with ``--configfile``.

    Raises:
        UsageError: the profile does not exist, or an unknown key was given.
    """
    wrong = [key for key in config if key not in CONFIG]
    for file in files if "name" in wrong else ():
        raise UsageError(f"{file} is a profile; give it as --config profile={file}")
    for key in wrong:
        if key in Profile.model_fields:
            raise UsageError(f"{key!r} belongs in a profile; see config/README.md")
        raise UsageError(f"--config: unknown key {key!r}{suggestion(key, CONFIG)}")
    value = config.get("profile", "quick")
    return find_profile("" if value is None else str(value))
