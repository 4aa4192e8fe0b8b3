"""Evaluation: fine-tune on unseen test tasks and record metrics along each trajectory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from lft.config import Profile, Run, Testing
from lft.meta.learner import Learner
from lft.meta.measured import measured, steps_of
from lft.results.folder import Results
from lft.results.kept_evaluations import take_evaluations
from lft.results.schema import Measurement
from lft.runtime.device import settings
from lft.seeding import generator
from lft.storage.tensors import below, prefixed
from lft.tasks.base import TaskFamily
from lft.tasks.build import Context, Families
from lft.types import Params, TaskBatch

log = logging.getLogger(__name__)

EXAMPLE_TASKS = 3
"""Test tasks per family whose perturbations are saved for the report's pictures."""


def evaluate(profile: Profile, run: Run, results: Path) -> None:
    """Measure a trained run on every test mixture that its method applies to.

    Writes ``measurements.csv`` and ``examples.safetensors`` into the run's folder. The second file
    is empty unless the families make pictures. A diverged run has no rows; its ``run.json`` records
    the divergence.

    Args:
        profile: settings.
        run: the run to measure.
        results: the profile's result folder.

    Raises:
        UsageError: weights or prepared files are missing or damaged, or the run was trained under
            other settings.
    """
    evaluate_runs(profile, [run], results)


def evaluate_runs(profile: Profile, runs: Iterable[Run], results: Path) -> None:
    """Measure several runs in turn; see :func:`evaluate`."""
    folder = Results(profile, results)
    own = take_evaluations(profile, runs, results)
    with settings(profile) as device:
        families = Families(Context(profile, results, device))
        for run in own:
            folder.write_evaluation(run, *_evaluate(folder, run, families))


def _evaluate(
    folder: Results, run: Run, families: Families
) -> tuple[list[Measurement], dict[str, Tensor]]:
    """Measure one run; return its rows and pictures."""
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
            found, end = trajectory(learner, meta, run, draw, family, tasks, start)
            rows.extend(_rows(run, mixture, name, found, learner.experiment.testing))
            if mixture == name and family.settings.pictures:
                first = tasks.first(EXAMPLE_TASKS)
                shown = {key: leaf[:EXAMPLE_TASKS] for key, leaf in end.items()}
                pictures = family.pictures(first, shown)
                examples |= prefixed(f"{run.method}/{name}", pictures)
    return rows, examples


def test_tasks(
    learner: Learner, meta: Params, run: Run, draw: str, family: TaskFamily, n_tasks: int
) -> tuple[TaskBatch, Params]:
    """Draw the test tasks of a seed and their θ⁽⁰⁾.

    Every method gets the same tasks and, unless it learns the initialisation, the same starts.

    Args:
        learner: method and settings.
        meta: meta-parameters.
        run: its experiment and seed name the random draws.
        draw: also names them: ``family`` for a family tested alone, ``mixture/family`` within a
            mixture. The two draw different tasks.
        family: family of the tasks.
        n_tasks: B.

    Returns:
        The tasks and θ⁽⁰⁾, each (B, …).
    """
    random = generator("test", run.experiment, draw, run.seed)
    tasks = family.sample(n_tasks, random, "test")
    return tasks, learner.start(meta, family, n_tasks, random)


def trajectory(
    learner: Learner,
    meta: Params,
    run: Run,
    draw: str,
    family: TaskFamily,
    tasks: TaskBatch,
    start: Params,
) -> tuple[dict[str, Tensor], Params]:
    """Fine-tune and measure a run's test tasks.

    Args:
        learner: method and settings.
        meta: meta-parameters.
        run: its experiment and seed name the draw of zeroth-order directions.
        draw: as in :func:`test_tasks`.
        family: family of the tasks.
        tasks: B tasks.
        start: θ⁽⁰⁾, each (B, …).

    Returns:
        As :func:`lft.meta.measured.measured`.
    """
    testing = learner.experiment.testing
    gradient = learner.gradient(generator("test directions", run.experiment, draw, run.seed))
    tuner, every = learner.tuner(meta), testing.every
    return measured(
        family, tuner, tasks, start, steps=testing.steps, every=every, gradient=gradient
    )


def _rows(
    run: Run, mixture: str, name: str, found: dict[str, Tensor], testing: Testing
) -> Iterator[Measurement]:
    """Yield the rows of one family in a test mixture."""
    for metric, values in found.items():
        steps = steps_of(values, testing.steps, testing.every)
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
