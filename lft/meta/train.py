"""Meta-training jobs: train runs of a profile, with checkpoints, into their folders."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

from lft.config import Profile, Run, digest
from lft.errors import Diverged, Interrupted, UsageError
from lft.kernels import build as native
from lft.meta.learner import Learner
from lft.meta.outer_loop import begin, meta_batches
from lft.meta.selection import pick_step_size
from lft.meta.state import TrainingState
from lft.results.kept import take_trainings
from lft.results.manifest import manifest
from lft.results.schema import HISTORY_COLUMNS
from lft.runtime.device import settings
from lft.runtime.memory import MemoryMeter
from lft.runtime.progress import HEARTBEAT, scalars, track
from lft.storage.checkpoint import Checkpoints, watch_for_stop
from lft.storage.csv import write_rows
from lft.storage.json import write_json
from lft.storage.tensors import prefixed, save_tensors
from lft.tasks.base import TaskFamily
from lft.tasks.build import Context, Families

log = logging.getLogger(__name__)


def train(profile: Profile, run: Run, results: Path, tensorboard: Path | None = None) -> None:
    """Meta-train one run and write its weights, history and manifest.

    Divergence is a result: the manifest records the status ``diverged``, and the weights include
    the best meta-parameters found before it.

    Args:
        profile: settings.
        run: the run to train.
        results: the profile's result folder.
        tensorboard: folder for TensorBoard event files, with one subfolder per run.

    Raises:
        UsageError: the method does not apply to these tasks, or files are missing.
        Interrupted: SIGTERM or SIGINT arrived. Only a checkpoint is written.
    """
    train_seeds(profile, [run], results, tensorboard)


def train_seeds(
    profile: Profile, runs: Sequence[Run], results: Path, tensorboard: Path | None = None
) -> None:
    """Meta-train runs that differ only in their seeds, one after the other; see :func:`train`.

    Checkpoints stay until all runs are done. Snakemake removes the outputs of a failed job, but the
    next attempt resumes from the checkpoints and repeats no finished training.
    """
    refusal = profile.why_not(runs[0])
    if refusal:
        raise UsageError(refusal)
    own = take_trainings(profile, runs, results)
    if not own:
        return
    learner = Learner.of(profile, runs[0])
    names = runs[0].trained_on.split("+")
    with settings(profile) as device:
        families = Families(Context(profile, results, device))
        for run in own:
            of_run = families.of(learner.experiment, names, run.seed)
            _train(profile, run, learner, of_run, results, tensorboard)
    for run in own:
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
    """Meta-train one run, resuming from its checkpoint if there is one, and write its outputs."""
    folder = results / run.folder
    checkpoints = _checkpoints(profile, run, results)
    memory = MemoryMeter()
    state = begin(learner, run, families)
    status, reason = "ok", ""
    try:
        if learner.method.learns == "step_size":
            pick_step_size(learner, run, families, state)
        else:
            saved = checkpoints.load()
            if saved:
                state = TrainingState.restored(*saved, like=state.meta)
            events = tensorboard and tensorboard / run.folder
            _watched(learner, run, families, state, checkpoints, profile.checkpoint_seconds, events)
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


def _watched(
    learner: Learner,
    run: Run,
    families: dict[str, TaskFamily],
    state: TrainingState,
    checkpoints: Checkpoints,
    checkpoint_seconds: float,
    events: Path | None,
) -> None:
    """Run the outer loop with checkpoints, progress and curves, to its end or a stop signal."""
    total = learner.meta_batches
    saved_at = time.monotonic()
    with (
        watch_for_stop() as stop,
        track(
            total, state.step, describe(run), checkpoints.folder.with_name(HEARTBEAT)
        ) as progress,
        scalars(events, state.step) as show,
    ):
        for done in meta_batches(learner, run, families, state):
            progress.advance(done.loss, state.best_score)
            seen = math.nan if done.validated is None else done.validated.score
            show(state.step, {f"outer loss/{done.family}": done.loss, "meta-validation": seen})
            due = state.step == total or time.monotonic() - saved_at > checkpoint_seconds
            if due or stop.received:
                checkpoints.save(state.step, state.tensors(), state.info())
                saved_at = time.monotonic()
            if stop.received:
                raise Interrupted(
                    f"stopped after meta-batch {state.step} of {total}; checkpoint saved",
                    stop.number,
                )


def describe(run: Run) -> str:
    """Describe a run in a few words, for progress bars and logs."""
    return f"{run.experiment} {run.method} ({run.order} order) on {run.trained_on}, seed {run.seed}"
