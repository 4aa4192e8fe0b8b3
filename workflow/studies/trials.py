"""Run the trials of a study, each with a prediction written down before, and tabulate the outcomes.

    cd workflow/studies
    python trials.py trainability.yaml --results ../../build/studies
    python trials.py trainability.yaml --page ../../docs/explanation/training.md

trainability.yaml asks what trains the fine-tuners, causes.yaml why the reference run has its
outcomes.

The usual loop meta-trains one trial and seed after the other. Each is then measured on further
meta-validation tasks, the same for all trials of an experiment and seed, and writes a file
``<trial>-seed<n>.json`` to the study's folder of rows. Trials with such a file are skipped, and an
interrupted one resumes from its checkpoint. Images and victims are prepared in the result folder
first, by the code of ``lft data`` and ``lft victim``.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor
from trials_table import load_rows, table, with_table

from lft.config import Profile, Run, load_profile
from lft.config.base import Settings
from lft.config.experiment import Variant
from lft.config.problems import explain
from lft.config.reading import read_yaml
from lft.data import prepare
from lft.errors import UsageError
from lft.meta.adapt import adapt, parts
from lft.meta.learner import Learner
from lft.meta.train import train
from lft.paths import CHECKOUT, data_path, victim_path
from lft.results.history import read_history
from lft.seeding import generator
from lft.storage.atomic import write_text
from lft.storage.json import read_json, write_json
from lft.storage.tensors import below, load_tensors
from lft.tasks.base import TaskFamily
from lft.tasks.build import build_families, make_victim
from lft.types import Params


class Trial(Settings):
    """One intervention, and the outcome predicted before it was run."""

    experiment: str
    trained_on: str
    method: str
    set: dict[str, Any] = Field(default={})  #: dotted key of the experiment -> value
    against: tuple[str, ...] = ()  #: trials to compare with
    suspect: str
    prediction: str  #: written down before the run
    excludes: str  #: the rival explanation that the predicted outcome excludes
    outcome: str = ""  #: written down after the run, without numbers: the rows hold those


class Study(Settings):
    """Content of a study's file."""

    rows: str = ""  #: folder of the rows, relative to the checkout; empty if --rows names it
    profile: str  #: profile that the trials change
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    tasks: Annotated[int, Field(ge=2)]  #: meta-validation tasks that measure a trial
    steps: tuple[int, ...]  #: fine-tuning steps with a measurement
    common: dict[str, dict[str, Any]]  #: experiment -> settings of all its trials
    #: experiment -> metrics that the table shows beside the primary one, after the last step
    beside: dict[str, tuple[str, ...]] = Field(default={})
    trials: dict[str, Trial]


def load_study(path: Path) -> Study:
    """Read the trials.

    Raises:
        UsageError: the file is not a study; the message names the key.
    """
    try:
        values = read_yaml(path, "study")
        named = {key: value for key, value in values.items() if not key.startswith("_")}
        return Study.model_validate(named)
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error)}") from None


def with_trials(profile: Profile, study: Study) -> Profile:
    """Return the profile with a variant for each trial."""
    experiments = dict(profile.experiments)
    for name, trial in study.trials.items():
        experiment = experiments[trial.experiment]
        settings = study.common.get(trial.experiment, {}) | trial.set
        variant = Variant(method=trial.method, label=name, set=settings)
        experiments[trial.experiment] = experiment.model_copy(
            update={"variants": experiment.variants | {name: variant}, "overrides": {}}
        )
        experiments[trial.experiment].for_method(name)
    return profile.model_copy(update={"experiments": experiments})


def run_trial(
    profile: Profile, study: Study, name: str, seed: int, results: Path
) -> dict[str, Any]:
    """Meta-train one trial with one seed and measure it."""
    trial = study.trials[name]
    run = Run(trial.experiment, trial.trained_on, name, "first", seed)
    train(profile, run, results)
    found = read_json(results / run.folder / "run.json", status=str)
    learner = Learner.of(profile, run)
    mixture = trial.trained_on.split("+")
    families = build_families(profile, learner.experiment, mixture, results, seed=seed)
    weights, _ = load_tensors(results / run.folder / "weights.safetensors")
    stages = ["best"] if found["best_meta_batch"] == found["meta_batches"] else ["best", "last"]
    if learner.method.learns == "step_size":
        stages = ["best"]  # the grid search has no other
    return {
        "trial": name,
        "seed": seed,
        "status": found["status"],
        "reason": found["reason"],
        "commit": found["commit"],
        "settings": learner.experiment.model_dump(
            mode="json", include={"training", "finetuner", "families"}
        ),
        "meta_batches": found["meta_batches"],
        "best_meta_batch": found["best_meta_batch"],
        "cpu_seconds": found["cpu_seconds"],
        "training": _history(results / run.folder / "history.csv"),
        "measured": {
            stage: {
                family: measure(learner, below(stage, weights), seed, key, families[family], study)
                for key, family in ((f"{trial.experiment} {f}", f) for f in families)
            }
            for stage in stages
        },
    }


@torch.no_grad()
def measure(
    learner: Learner, meta: Params, seed: int, key: str, family: TaskFamily, study: Study
) -> dict[str, dict[str, list[float]]]:
    """Measure the metrics after each of the study's steps.

    Args:
        learner: method and settings.
        meta: meta-parameters.
        seed: seed of the trial.
        key: names the draw of tasks.
        family: family of the tasks.
        study: number of tasks and steps.

    Returns:
        Metric -> step -> mean and standard error over tasks.
    """
    random = generator("trainability", key, seed)
    tasks = family.sample(study.tasks, random, "validation")
    start = learner.start(meta, family, study.tasks, random)
    gradient, steps = learner.gradient(random), learner.experiment.training.steps
    values: dict[tuple[str, int], list[Tensor]] = {}
    primary = family.settings.primary

    def record(step: int, params: Params, part: Any) -> None:
        of_support = family.metrics(params, part.support)[primary]
        found = family.metrics(params, part.query) | {f"{primary}_support": of_support}
        found["loss"] = family.loss(params, part.query)
        for metric, value in found.items():
            values.setdefault((metric, step), []).append(value.double())

    for part, params in parts(tasks, start):
        record(0, params, part)
        points = adapt(
            family, learner.tuner(meta), params, part.support, steps=steps, gradient=gradient
        )
        for step, point in enumerate(points, start=1):
            if step in study.steps:
                record(step, point.params, part)
    result: dict[str, dict[str, list[float]]] = {}
    for (metric, step), pieces in values.items():
        every = torch.cat(pieces)
        error = every.std() / len(every) ** 0.5
        result.setdefault(metric, {})[str(step)] = [_short(every.mean()), _short(error)]
    return result


def _history(path: Path) -> dict[str, Any]:
    """Summarise a meta-training: its outer losses, and every validation."""
    rows = read_history(path)
    losses = rows["loss"][rows["meta_step"] > 0].dropna().tolist()
    start = float(rows["outer"].iloc[0])
    late = losses[len(losses) // 10 :]
    validated = rows.dropna(subset=["validation"])
    return {
        "median_loss": _short(statistics.median(losses)) if losses else None,
        "exploded": _short(sum(f > 10 * start for f in late) / len(late)) if late else None,
        "validations": [
            [int(row[0]), *map(_short, row[1:])]
            for row in validated[["meta_step", "validation", "error", "outer"]].to_numpy()
        ],
    }


def _short(value: Any) -> float:
    return float(f"{float(value):.5g}")


def prepare_inputs(profile: Profile, study: Study, results: Path) -> None:
    """Prepare the images and victims that the trials need."""
    for trial in study.trials.values():
        experiment = profile.experiment(trial.experiment)
        for name in trial.trained_on.split("+"):
            family = experiment.families[name]
            source = family.image_source
            if source is None:
                continue
            if not data_path(results, source).exists():
                prepare(profile.sources[source], data_path(results, source))
            if family.victim_source is None:
                continue
            for seed in {profile.victim_seed(seed): None for seed in study.seeds}:
                if not victim_path(results, source, seed).exists():
                    make_victim(profile, source, results, seed)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="file of the study")
    parser.add_argument("--results", type=Path, help="scratch folder, needed to run trials")
    parser.add_argument("--page", type=Path, help="run nothing; rewrite the table in this page")
    parser.add_argument("--rows", type=Path, help="folder of the rows; the study's by default")
    parser.add_argument(
        "--trials", nargs="+", help="trials to run; all, in the file's order, by default"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    study = load_study(options.study)
    if options.rows is None and not study.rows:
        raise UsageError(f"{options.study} names no folder of rows; name one with --rows")
    rows = options.rows or (CHECKOUT or Path()) / study.rows
    if options.page:
        made = table(study, load_rows(rows))
        write_text(options.page, with_table(options.page.read_text(encoding="utf-8"), made))
        return
    if options.results is None:
        raise UsageError("name a scratch folder for the trainings with --results")
    chosen = options.trials or list(study.trials)
    unknown = set(chosen) - set(study.trials)
    if unknown:
        raise UsageError(f"unknown trial {min(unknown)!r}; {options.study} lists them")
    profile = with_trials(load_profile(study.profile), study)
    kept = study.model_copy(update={"trials": {name: study.trials[name] for name in chosen}})
    prepare_inputs(profile, kept, options.results)
    for name in chosen:
        for seed in study.seeds:
            path = rows / f"{name}-seed{seed}.json"
            if not path.exists():
                logging.info("%s, seed %d", name, seed)
                write_json(path, run_trial(profile, study, name, seed, options.results))


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None
