"""The mutable state of a meta-training, and its checkpoint format."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lft.finetuners.gradient_descent import Adam, AdamState
from lft.storage.tensors import below, prefixed
from lft.types import Params


@dataclass
class TrainingState:
    """The state of a meta-training, saved in every checkpoint.

    Attributes:
        meta: current meta-parameters.
        moments: state of the meta-optimizer (Adam).
        stages: meta-parameters at the ``initial``, ``halfway`` and ``best`` points so far.
        step: meta-batches done.
        best_score: lowest meta-validation score so far.
        best_step: ``step`` at which it was reached.
        history: rows of HISTORY_COLUMNS.
        began: start on this process's wall clock, moved back by time spent in earlier processes;
            seconds.
        cpu_began: the same on its CPU clock; seconds.
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
        """Return the state before the first meta-batch."""
        return cls(meta, Adam(1.0).start(meta), {"initial": meta})

    @property
    def seconds(self) -> float:
        """Wall-clock time spent so far, over all processes of this meta-training."""
        return time.perf_counter() - self.began

    @property
    def cpu_seconds(self) -> float:
        """CPU time in seconds, over the same processes."""
        return time.process_time() - self.cpu_began

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors as one flat dict, for a checkpoint."""
        flat = prefixed("meta", self.meta) | {"steps": self.moments["steps"]}
        flat |= prefixed("mean", self.moments["mean"])
        flat |= prefixed("square", self.moments["square"])
        for stage, meta in self.stages.items():
            flat |= prefixed(f"stage-{stage}", meta)
        return flat

    def info(self) -> dict[str, Any]:
        """Return the rest of the state as JSON values, except ``step``, which the file adds."""
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
        """Restore a state from a checkpoint; inverse of :meth:`tensors` and :meth:`info`.

        Args:
            flat: the checkpoint's tensors.
            info: its other values, with ``step``.
            like: meta-parameters that set the order of names and the devices.
        """

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
