"""The outer loop (Algorithm 1): truncated segments, clipping, model selection, checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lft.config import Profile, Run, digest
from lft.errors import Diverged, Interrupted, UsageError
from lft.finetuners.gradient_descent import Adam, AdamState
from lft.kernels import build as native
from lft.meta.adapt import adapt, parts
from lft.meta.estimators import meta_gradient
from lft.meta.estimators.base import norm, step_weights, weights
from lft.meta.learner import Learner
from lft.results.manifest import manifest
from lft.results.schema import HISTORY_COLUMNS
from lft.runtime.device import settings
from lft.runtime.memory import MemoryMeter
from lft.runtime.progress import HEARTBEAT, scalars, track
from lft.seeding import generator
from lft.storage.checkpoint import Checkpoints, watch_for_stop
from lft.storage.csv import write_rows
from lft.storage.json import write_json
from lft.storage.tensors import below, prefixed, save_tensors
from lft.tasks.base import TaskFamily
from lft.tasks.build import Context, Families
from lft.types import Batch, Params

log = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """All that changes during a meta-training; what a checkpoint holds.

    Attributes:
        meta: current meta-parameters; ``stages`` keeps the initial, halfway and best ones.
        moments: state of the meta-optimizer (Adam).
        step: meta-batches done.
        best_score: lowest meta-validation score so far.
        history: rows of HISTORY_COLUMNS.
        began, cpu_began: when the meta-training began, on this process's clocks, moved back by what
            earlier processes spent on it.
    """

    meta: Params
    moments: AdamState
    stages: dict[str, Params]
    step: int = 0
    best_score: float = math.inf
    best_step: int = 0
    history: list[list[Any]] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    cpu_began: float = field(default_factory=time.process_time)

    @classmethod
    def fresh(cls, meta: Params) -> TrainingState:
        return cls(meta, Adam(1.0).start(meta), {"initial": meta})

    @property
    def seconds(self) -> float:
        """Time spent so far, over all processes that went on with it."""
        return time.perf_counter() - self.began

    @property
    def cpu_seconds(self) -> float:
        """CPU time spent so far, likewise."""
        return time.process_time() - self.cpu_began

    def tensors(self) -> dict[str, Tensor]:
        """Everything as flat tensors, for a checkpoint."""
        flat = prefixed("meta", self.meta) | {"steps": self.moments["steps"]}
        flat |= prefixed("mean", self.moments["mean"])
        flat |= prefixed("square", self.moments["square"])
        for stage, meta in self.stages.items():
            flat |= prefixed(f"stage-{stage}", meta)
        return flat

    def info(self) -> dict[str, Any]:
        return {
            "best_score": self.best_score,
            "best_step": self.best_step,
            "history": self.history,
            "stages": list(self.stages),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    @classmethod
    def restored(cls, flat: dict[str, Tensor], info: dict[str, Any], like: Params) -> TrainingState:
        """Inverse of :meth:`tensors` and :meth:`info`; devices and order are those of ``like``."""

        def part(prefix: str) -> Params:
            found = below(prefix, flat)
            return {name: found[name].to(leaf.device) for name, leaf in like.items()}

        return cls(
            part("meta"),
            AdamState(mean=part("mean"), square=part("square"), steps=flat["steps"]),
            {stage: part(f"stage-{stage}") for stage in info["stages"]},
            info["step"],
            info["best_score"],
            info["best_step"],
            info["history"],
            time.perf_counter() - info["seconds"],
            time.process_time() - info["cpu_seconds"],
        )


def train(profile: Profile, run: Run, results: Path, tensorboard: Path | None = None) -> None:
    """Meta-train one run and write its weights, history and manifest.

    A training that diverges is a result: it is recorded with status ``diverged``, together with
    the best meta-parameters until then.

    Args:
        tensorboard: folder for TensorBoard's event files, one folder below it for each run.

    Raises:
        UsageError: the method does not apply to these tasks, or files are missing.
        Interrupted: SIGTERM or SIGINT came; a checkpoint is saved and nothing else is written.
    """
    train_seeds(profile, [run], results, tensorboard)


def train_seeds(
    profile: Profile, runs: Sequence[Run], results: Path, tensorboard: Path | None = None
) -> None:
    """Meta-train runs that differ in their seeds alone, one after the other; see :func:`train`.

    Checkpoints are kept until all runs are done: what was trained before an interruption is not
    trained again, even if its outputs were removed, as Snakemake does with those of a failed job.
    """
    refusal = profile.why_not(runs[0])
    if refusal:
        raise UsageError(refusal)
    learner = Learner.of(profile, runs[0])
    names = runs[0].trained_on.split("+")
    with settings(profile) as device:
        families = Families(Context(profile, results, device))
        for run in runs:
            of_run = families.of(learner.experiment, names, run.seed)
            _train(profile, run, learner, of_run, results, tensorboard)
    for run in runs:
        _checkpoints(profile, run, results).clear()


def _checkpoints(profile: Profile, run: Run, results: Path) -> Checkpoints:
    return Checkpoints(results / run.folder / "checkpoints", digest(profile.training_inputs(run)))


def _train(
    profile: Profile,
    run: Run,
    learner: Learner,
    families: dict[str, TaskFamily],
    results: Path,
    tensorboard: Path | None,
) -> None:
    """Meta-train one run, going on from its checkpoint, and write its outputs."""
    folder = results / run.folder
    checkpoints = _checkpoints(profile, run, results)
    memory = MemoryMeter()
    first = next(iter(families.values()))
    state = TrainingState.fresh(learner.initial(first, generator("meta", run.experiment, run.seed)))
    status, reason = "ok", ""
    try:
        if learner.method.learns == "step_size":
            _pick_step_size(learner, run, families, state)
        else:
            saved = checkpoints.load()
            if saved:
                state = TrainingState.restored(*saved, like=state.meta)
            events = tensorboard and tensorboard / run.folder
            _meta_train(
                learner, run, families, state, checkpoints, profile.checkpoint_seconds, events
            )
    except Diverged as divergence:
        status, reason = "diverged", str(divergence)
        log.warning("diverged: %s", reason)
    used = native.used(profile.kernel, profile.device)
    stages = {"best": state.meta} | state.stages | {"last": state.meta}
    flat = {k: v for stage, meta in stages.items() for k, v in prefixed(stage, meta).items()}
    save_tensors(folder / "weights.safetensors", flat, {"run": run._asdict(), "status": status})
    write_rows(folder / "history.csv", HISTORY_COLUMNS, state.history)
    write_json(
        folder / "run.json",
        manifest(
            profile.training_inputs(run),
            run=run._asdict(),
            status=status,
            reason=reason,
            seconds=round(state.seconds, 3),
            cpu_seconds=round(state.cpu_seconds, 3),
            memory_mb=memory.peak_mb(),
            device=profile.device,
            threads=profile.threads,
            kernel=used,
            meta_batches=state.step,
            best_meta_batch=state.best_step,
            validation_score=state.best_score if math.isfinite(state.best_score) else None,
        ),
    )


def _meta_train(
    learner: Learner,
    run: Run,
    families: dict[str, TaskFamily],
    state: TrainingState,
    checkpoints: Checkpoints,
    checkpoint_seconds: float,
    events: Path | None,
) -> None:
    """Run the outer loop from ``state`` to its end, changing ``state``."""
    training, total = learner.experiment.training, learner.meta_batches
    rounds = {
        math.ceil(total * (i + 1) / training.validation.rounds)
        for i in range(training.validation.rounds)
    }
    saved_at = time.monotonic()
    names = list(families)
    with (
        watch_for_stop() as stop,
        track(
            total, state.step, describe(run), checkpoints.folder.with_name(HEARTBEAT)
        ) as progress,
        scalars(events, state.step) as show,
    ):
        if not state.history:
            start = validate(learner, state.meta, run, families)
            state.history.append([0, "+".join(names), start.outer, *_numbers(start)])
        while state.step < total:
            name = names[state.step % len(names)]
            loss = _meta_batch(learner, run, name, families[name], state, total)
            state.step += 1
            if state.step == math.ceil(total / 2):
                state.stages["halfway"] = state.meta
            found = None
            if state.step in rounds:
                found = validate(learner, state.meta, run, families)
                if found.score < state.best_score:
                    state.best_score, state.best_step = found.score, state.step
                    state.stages["best"] = state.meta
            state.history.append([state.step, name, loss, *_numbers(found)])
            progress.advance(loss, state.best_score)
            seen = math.nan if found is None else found.score
            show(state.step, {f"outer loss/{name}": loss, "meta-validation": seen})
            due = state.step == total or time.monotonic() - saved_at > checkpoint_seconds
            if due or stop.received:
                checkpoints.save(state.step, state.tensors(), state.info())
                saved_at = time.monotonic()
            if stop.received:
                raise Interrupted(
                    f"stopped after meta-batch {state.step} of {total}; checkpoint saved",
                    stop.number,
                )
    if not math.isfinite(state.best_score):
        raise Diverged("the meta-validation score was never finite")


def _numbers(found: Validated | None) -> list[float | str]:
    """The history's columns of a meta-validation, empty where there was none or it is NaN."""
    return ["" if math.isnan(value) else value for value in found or [math.nan] * 3]


def _meta_batch(
    learner: Learner,
    run: Run,
    name: str,
    family: TaskFamily,
    state: TrainingState,
    total: int,
) -> float:
    """Fine-tune one meta-batch along its whole trajectory; one meta-update per segment.

    Returns:
        The outer loss, averaged over the segments.
    """
    learner = learner.at(state.step)
    training, plan = learner.experiment.training, learner.plan
    batch = state.step % training.batches
    tasks = family.sample(
        training.meta_batch,
        generator("train tasks", run.experiment, name, run.seed, batch),
        "train",
    )
    random = generator("train", run.experiment, run.order, run.seed, state.step)
    n_segments = plan.steps // plan.segment
    losses: list[float] = []
    progress = None
    for index in range(n_segments):
        estimate = meta_gradient(learner, state.meta, family, tasks, progress, random)
        progress, loss, size = estimate.end, float(estimate.loss), norm(estimate.grads)
        losses.append(loss)
        if not (math.isfinite(loss) and math.isfinite(size)):
            raise Diverged(
                f"outer loss {loss:g}, meta-gradient norm {size:g} at "
                f"meta-batch {state.step + 1}, segment {index + 1}"
            )
        if not any(weights(learner, index * plan.segment)):
            continue  # Adam would move on its momentum alone.
        rate = plan.learning_rate
        if training.schedule == "cosine" or not learner.method.learns_finetuner:
            done = (state.step + index / n_segments) / total
            rate *= 0.5 * (1 + math.cos(math.pi * done))
        clip = min(1.0, training.clip / (size + 1e-12))
        clipped = {key: leaf * clip for key, leaf in estimate.grads.items()}
        state.moments, state.meta = Adam(rate).step(state.moments, state.meta, clipped)
    return sum(losses) / n_segments


class Validated(NamedTuple):
    """A meta-validation.

    Attributes:
        score: what model selection minimises, :func:`score` weighted by w_k over all steps.
        error: its standard error over meta-validation tasks.
        outer: the outer loss on the same tasks, without any cap.
    """

    score: float
    error: float
    outer: float


@torch.no_grad()
def validate(
    learner: Learner, meta: Params, run: Run, families: dict[str, TaskFamily]
) -> Validated:
    """Fine-tune the meta-validation tasks; the same ones at every call, and for every method.

    A method sees no more of them than in meta-training: L2O is judged by its own loss.
    """
    training = learner.experiment.training
    w_k = step_weights(training.step_weights, training.steps)
    of_families = []
    for name, family in families.items():
        random = generator("validation", run.experiment, name, run.seed)
        tasks = family.sample(training.validation.tasks, random, "validation")
        start = learner.start(meta, family, training.validation.tasks, random)
        gradient = learner.gradient(random)
        of_parts = []
        for part, params in parts(tasks, start):
            support, query = learner.data(part)
            tuner, steps = learner.tuner(meta), training.steps
            points = adapt(family, tuner, params, support, steps=steps, gradient=gradient)
            values = [
                w * _judged(family, point.params, query)
                for w, point in zip(w_k, points, strict=True)
                if w
            ]
            of_parts.append(torch.stack(values).sum(0))
        of_families.append(torch.cat(of_parts, dim=1))
    n = len(of_families)
    means = torch.stack([values.mean(1) for values in of_families]).mean(0)
    spread = sum(float(values[0].var()) / values.shape[1] for values in of_families)
    return Validated(float(means[0]), math.sqrt(spread) / n, float(means[1]))


def _judged(family: TaskFamily, params: Params, query: Batch) -> Tensor:
    """Score and outer loss of each task, (2, B), in float64."""
    judged = family.score(params, query)
    loss = family.loss(params, query) if family.settings.primary == "accuracy" else judged
    return torch.stack([judged, loss]).double()


def _pick_step_size(
    learner: Learner, run: Run, families: dict[str, TaskFamily], state: TrainingState
) -> None:
    """Choose a hand-designed fine-tuner's step size on meta-validation tasks."""
    grid = learner.experiment.step_sizes[learner.method.tuner]
    for index, step_size in enumerate(grid, start=1):
        meta = {"step_size": torch.tensor(step_size, dtype=torch.float64)}
        found = validate(learner, meta, run, families)
        log.info("step size %g: meta-validation score %g", step_size, found.score)
        state.history.append([index, "+".join(families), math.nan, *found])
        if found.score < state.best_score:
            state.best_score, state.best_step = found.score, index
            state.stages["best"] = meta
    state.step = len(grid)
    if not math.isfinite(state.best_score):
        raise Diverged("the meta-validation score was not finite for any step size")


def describe(run: Run) -> str:
    """A run in a few words, for progress bars and logs."""
    return f"{run.experiment} {run.method} ({run.order} order) on {run.trained_on}, seed {run.seed}"
