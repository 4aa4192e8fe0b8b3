"""What changes during a meta-training, and its form in a checkpoint."""

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
