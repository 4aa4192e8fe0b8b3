"""Fine-tuning on unseen test tasks: the metrics after every step, all tasks of a family at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lft.config import Profile, Run
from lft.meta.adapt import adapt, parts
from lft.meta.learner import Learner
from lft.results.records import Measurement, read_json, write_rows
from lft.seeding import generator
from lft.storage.tensors import below, load_tensors, prefixed, save_tensors
from lft.tasks.attack import Attack
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
    for method in profile.evaluated(run._replace(seed=profile.seeds[0])):
        of_method, of_examples = _evaluate(profile, method, results)
        rows.extend(of_method)
        examples |= prefixed(method.method, of_examples)
    write_rows(results / run.evaluation_folder / "measurements.csv", Measurement._fields, rows)
    save_tensors(results / run.evaluation_folder / "examples.safetensors", examples, {})


def _evaluate(
    profile: Profile, run: Run, results: Path
) -> tuple[list[Measurement], dict[str, Tensor]]:
    """Rows and pictures of one method."""
    experiment = profile.experiment(run.experiment)
    mixtures = [m for m in experiment.test_on if profile.why_not(run, m) is None]
    names = profile.tested_families(run)
    families = build_families(profile, experiment.for_method(run.method), names, results)
    rows: list[Measurement] = []
    examples: dict[str, Tensor] = {}
    for seed in profile.seeds:
        seeded = run._replace(seed=seed)
        folder = results / seeded.folder
        if read_json(folder / "run.json", status=str)["status"] != "ok":
            log.warning("%s diverged and is left out", folder)
            continue
        learner = Learner.of(profile, seeded)
        flat, _ = load_tensors(folder / "weights.safetensors", profile.device)
        meta = below("best", flat)
        measured = {}
        for name, family in families.items():
            tasks, start = test_tasks(learner, meta, seeded, name, family)
            measured[name], end = trajectory(learner, meta, seeded, name, family, tasks, start)
            if isinstance(family, Attack) and seed == profile.seeds[0]:
                examples |= prefixed(name, pictures(family, tasks, end))
        for mixture in mixtures:
            rows.extend(_rows(seeded, mixture, measured, learner.experiment.testing.every))
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
        Each metric as (steps / every + 1, B), from step 0: the query set's metrics, the primary
        metric of the support set with the suffix ``_support``, and for attacks ``first_full``
        (1, B): the first step of all with ASR 100 %, NaN if there is none. And θ after the last
        step.
    """
    steps, every = learner.experiment.testing.steps, learner.experiment.testing.every
    is_attack = isinstance(family, Attack)
    gradient = learner.gradient(generator("test directions", run.experiment, name, run.seed))
    measured, ends = [], []
    for part, params in parts(tasks, start):
        rows = [_measure(family, params, part)]
        asr = [rows[0]["asr"]] if is_attack else []
        tuner = learner.tuner(meta)
        points = adapt(family, tuner, params, part.support, steps=steps, gradient=gradient)
        for step, point in enumerate(points, start=1):
            if step % every == 0:
                rows.append(_measure(family, point.params, part))
            if is_attack:
                here = rows[-1] if step % every == 0 else family.metrics(point.params, part.query)
                asr.append(here["asr"])
        measured.append({key: torch.stack([row[key] for row in rows]) for key in rows[0]})
        if is_attack:
            measured[-1]["first_full"] = first_full(torch.stack(asr))
        ends.append(point.params)
    result = {key: torch.cat([of_part[key] for of_part in measured], 1) for key in measured[0]}
    return result, {key: torch.cat([end[key] for end in ends]) for key in ends[0]}


def _measure(family: TaskFamily, params: Params, tasks: TaskBatch) -> dict[str, Tensor]:
    primary = family.primary
    support = family.metrics(params, tasks.support)[primary]
    return family.metrics(params, tasks.query) | {f"{primary}_support": support}


def first_full(asr: Tensor) -> Tensor:
    """First step with ASR 100 %, (1, B), from (steps + 1, B); NaN where there is none."""
    full = asr >= 1
    first = full.to(torch.float32).argmax(0, keepdim=True).to(torch.float32)
    return first.where(full.any(0, keepdim=True), torch.nan)


def _rows(
    run: Run, mixture: str, measured: dict[str, dict[str, Tensor]], every: int
) -> Iterator[Measurement]:
    """Rows of one test mixture, which takes an equal share of each family's tasks."""
    names = mixture.split("+")
    for name in names:
        for metric, values in measured[name].items():
            n_tasks = values.shape[1] // len(names)
            last = len(measured[name]["asr"]) - 1 if metric == "first_full" else len(values) - 1
            steps = range(last + 1) if len(values) > 1 else [last]
            for stride, row in zip(steps, values[:, :n_tasks].tolist(), strict=True):
                for task, value in enumerate(row):
                    yield Measurement(
                        run.experiment,
                        run.trained_on,
                        mixture,
                        run.method,
                        run.order,
                        run.seed,
                        f"{name}-{task}",
                        stride * every,
                        metric,
                        value,
                    )


@torch.no_grad()
def pictures(family: Attack, tasks: TaskBatch, end: Params) -> dict[str, Tensor]:
    """Query images, perturbation and predictions of the first test tasks.

    Returns:
        ``images`` (n, m, C, H, W) uint8, ``perturbation`` (n, C, H, W), ``labels``, ``clean`` and
        ``attacked`` (n, m): true classes and the victim's predictions without and with δ.
    """
    delta = {"delta": end["delta"][:EXAMPLE_TASKS]}
    images, labels = (leaf[:EXAMPLE_TASKS] for leaf in tasks.query)
    return {
        "images": (images * 255).round().to(torch.uint8),
        "perturbation": delta["delta"],
        "labels": labels,
        "clean": family.logits(images).argmax(-1),
        "attacked": family.logits(family.attacked(delta, images)).argmax(-1),
    }
