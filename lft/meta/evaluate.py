"""Fine-tuning on unseen test tasks: the metrics after every step, all tasks of a family at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from lft.config import Profile, Run, Testing
from lft.meta.adapt import adapt, parts
from lft.meta.learner import Learner
from lft.metrics import SUPPORT
from lft.results.folder import Results
from lft.results.schema import Measurement
from lft.runtime.device import settings
from lft.seeding import generator
from lft.storage.tensors import below, prefixed
from lft.tasks.base import TaskFamily
from lft.tasks.build import Context, Families
from lft.types import Params, TaskBatch

log = logging.getLogger(__name__)

EXAMPLE_TASKS = 3
"""Test tasks per family whose perturbations are kept for the report's pictures."""


def evaluate(profile: Profile, run: Run, results: Path) -> None:
    """Measure a trained run on all test mixtures that its method applies to.

    Writes ``measurements.csv`` and, for attacks with pictures, else empty, ``examples.safetensors``
    into the run's folder. A diverged run has no rows; its status stands in its ``run.json``.

    Raises:
        UsageError: weights or prepared files are missing or damaged, or the run was trained under
            other settings.
    """
    evaluate_runs(profile, [run], results)


def evaluate_runs(profile: Profile, runs: Iterable[Run], results: Path) -> None:
    """Measure several runs, one after the other; see :func:`evaluate`."""
    folder = Results(profile, results)
    with settings(profile) as device:
        families = Families(Context(profile, results, device))
        for run in runs:
            folder.write_evaluation(run, *_evaluate(folder, run, families))


def _evaluate(
    folder: Results, run: Run, families: Families
) -> tuple[list[Measurement], dict[str, Tensor]]:
    """Rows and pictures of one run."""
    if folder.trained(run).status != "ok":
        log.warning("%s diverged and is left out", folder.folder / run.folder)
        return [], {}
    learner = Learner.of(folder.profile, run)
    meta = below("best", folder.weights(run, families.context.device))
    rows: list[Measurement] = []
    examples: dict[str, Tensor] = {}
    for mixture in folder.profile.experiment(run.experiment).test_on:
        if folder.profile.why_not(run, mixture):
            continue
        names = mixture.split("+")
        for name, family in families.of(learner.experiment, names, run.seed).items():
            draw = name if mixture == name else f"{mixture}/{name}"
            n_tasks = learner.experiment.testing.tasks // len(names)
            tasks, start = test_tasks(learner, meta, run, draw, family, n_tasks)
            measured, end = trajectory(learner, meta, run, draw, family, tasks, start)
            rows.extend(_rows(run, mixture, name, measured, learner.experiment.testing))
            if mixture == name and family.settings.pictures:
                first = tasks.first(EXAMPLE_TASKS)
                shown = {key: leaf[:EXAMPLE_TASKS] for key, leaf in end.items()}
                pictures = family.pictures(first, shown)
                examples |= prefixed(f"{run.method}/{name}", pictures)
    return rows, examples


def test_tasks(
    learner: Learner, meta: Params, run: Run, draw: str, family: TaskFamily, n_tasks: int
) -> tuple[TaskBatch, Params]:
    """The test tasks of a seed, and θ⁽⁰⁾: the same tasks and random starts for every method.

    Args:
        draw: names the random draws: the family where it is tested alone, ``mixture/family`` in a
            mixture, which has tasks of its own.
    """
    random = generator("test", run.experiment, draw, run.seed)
    tasks = family.sample(n_tasks, random, "test")
    return tasks, learner.start(meta, family, n_tasks, random)


@torch.no_grad()
def trajectory(
    learner: Learner,
    meta: Params,
    run: Run,
    draw: str,
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
    gradient = learner.gradient(generator("test directions", run.experiment, draw, run.seed))
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
    run: Run, mixture: str, name: str, measured: dict[str, Tensor], testing: Testing
) -> Iterator[Measurement]:
    """Rows of one family in a test mixture."""
    for metric, values in measured.items():
        steps = [*range(0, testing.steps + 1, testing.every)][-len(values) :]
        for step, row in zip(steps, values.tolist(), strict=True):
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
