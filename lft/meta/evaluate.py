"""Fine-tuning on unseen test tasks: the metrics after every step, all tasks of a family at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from lft.config import Profile, Run, Testing
from lft.meta.adapt import adapt, parts
from lft.meta.learner import Learner
from lft.metrics import SUPPORT
from lft.results.records import Measurement, read_json, write_rows
from lft.runtime.device import settings
from lft.seeding import generator
from lft.storage.tensors import below, load_tensors, prefixed, save_tensors
from lft.tasks.base import TaskFamily
from lft.tasks.build import build_families
from lft.types import Params, TaskBatch

log = logging.getLogger(__name__)

EXAMPLE_TASKS = 3
"""Test tasks per family whose perturbations are kept for the report's pictures."""


def evaluate(profile: Profile, run: Run, results: Path) -> None:
    """Measure one method, or all, trained on one mixture, on all test mixtures that it applies to.

    Writes ``measurements.csv`` of all seeds (``run.seed`` is ignored) and ``examples.safetensors``:
    for attacks the pictures of the first seed, else empty. A diverged run has no rows; its status
    stands in its ``run.json``.

    Args:
        run: names the method, or :data:`lft.config.ALL`.

    Raises:
        UsageError: weights or prepared files are missing or damaged.
    """
    rows: list[Measurement] = []
    examples: dict[str, Tensor] = {}
    with settings(profile) as device:
        for method in profile.evaluated(run._replace(seed=profile.seeds[0])):
            of_method, of_examples = _evaluate(profile, method, results, device)
            rows.extend(of_method)
            examples |= prefixed(method.method, of_examples)
    write_rows(results / run.evaluation_folder / "measurements.csv", Measurement._fields, rows)
    save_tensors(results / run.evaluation_folder / "examples.safetensors", examples, {})


def _evaluate(
    profile: Profile, run: Run, results: Path, device: torch.device
) -> tuple[list[Measurement], dict[str, Tensor]]:
    """Rows and pictures of one method."""
    experiment = profile.experiment(run.experiment)
    mixtures = [m for m in experiment.test_on if profile.why_not(run, m) is None]
    names = profile.tested_families(run)
    families = build_families(profile, experiment.for_method(run.method), names, results, device)
    rows: list[Measurement] = []
    examples: dict[str, Tensor] = {}
    for seed in profile.seeds:
        seeded = run._replace(seed=seed)
        folder = results / seeded.folder
        if read_json(folder / "run.json", status=str)["status"] != "ok":
            log.warning("%s diverged and is left out", folder)
            continue
        learner = Learner.of(profile, seeded)
        flat, _ = load_tensors(folder / "weights.safetensors", device)
        meta = below("best", flat)
        measured = {}
        for name, family in families.items():
            tasks, start = test_tasks(learner, meta, seeded, name, family)
            measured[name], end = trajectory(learner, meta, seeded, name, family, tasks, start)
            if family.settings.pictures and seed == profile.seeds[0]:
                first = tasks.first(EXAMPLE_TASKS)
                shown = {key: leaf[:EXAMPLE_TASKS] for key, leaf in end.items()}
                examples |= prefixed(name, family.pictures(first, shown))
        for mixture in mixtures:
            rows.extend(_rows(seeded, mixture, measured, learner.experiment.testing))
    return rows, examples


def test_tasks(
    learner: Learner, meta: Params, run: Run, name: str, family: TaskFamily
) -> tuple[TaskBatch, Params]:
    """The test tasks of a seed, and θ⁽⁰⁾: the same tasks and random starts for every method."""
    n_tasks = learner.experiment.testing.tasks
    random = generator("test", run.experiment, name, run.seed)
    tasks = family.sample(n_tasks, random, "test")
    return tasks, learner.start(meta, family, n_tasks, random)


@torch.no_grad()
def trajectory(
    learner: Learner,
    meta: Params,
    run: Run,
    name: str,
    family: TaskFamily,
    tasks: TaskBatch,
    start: Params,
) -> tuple[dict[str, Tensor], Params]:
    """Fine-tune and measure.

    Returns:
        Each metric as (steps / every + 1, B), from step 0: the query set's metrics and the primary
        metric of the support set, with the ending ``_support``; those of a whole trajectory, as
        the family's settings name them, as (1, B). And θ after the last step.
    """
    testing = learner.experiment.testing
    whole = {m.name: m.first_of for m in family.settings.metrics if m.first_of}
    gradient = learner.gradient(generator("test directions", run.experiment, name, run.seed))
    measured, ends = [], []
    for part, params in parts(tasks, start):
        tuner = learner.tuner(meta)
        points = adapt(family, tuner, params, part.support, steps=testing.steps, gradient=gradient)
        after = chain([params], (point.params for point in points))
        rows, every_step = [], []
        for step, end in enumerate(after):
            written = step % testing.every == 0
            if written or whole:
                every_step.append(family.metrics(end, part.query))
            if written:
                rows.append(every_step[-1] | _on_support(family, end, part))
        found = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        for name_of, share in whole.items():
            found[name_of] = first_full(torch.stack([row[share] for row in every_step]))
        measured.append(found)
        ends.append(end)
    result = {key: torch.cat([of_part[key] for of_part in measured], 1) for key in measured[0]}
    return result, {key: torch.cat([end[key] for end in ends]) for key in ends[0]}


def _on_support(family: TaskFamily, params: Params, tasks: TaskBatch) -> dict[str, Tensor]:
    primary = family.settings.primary
    return {f"{primary}{SUPPORT}": family.metrics(params, tasks.support)[primary]}


def first_full(shares: Tensor) -> Tensor:
    """First step with a share of 100 %, (1, B), from (steps + 1, B); NaN where there is none."""
    full = shares >= 1
    first = full.to(torch.float32).argmax(0, keepdim=True).to(torch.float32)
    return first.where(full.any(0, keepdim=True), torch.nan)


def _rows(
    run: Run, mixture: str, measured: dict[str, dict[str, Tensor]], testing: Testing
) -> Iterator[Measurement]:
    """Rows of one test mixture, which takes an equal share of each family's tasks."""
    names = mixture.split("+")
    for name in names:
        for metric, values in measured[name].items():
            n_tasks = values.shape[1] // len(names)
            steps = [*range(0, testing.steps + 1, testing.every)][-len(values) :]
            for step, row in zip(steps, values[:, :n_tasks].tolist(), strict=True):
                for task, value in enumerate(row):
                    yield Measurement(
                        run.experiment,
                        run.trained_on,
                        mixture,
                        run.method,
                        run.order,
                        run.seed,
                        f"{name}-{task}",
                        step,
                        metric,
                        value,
                    )
