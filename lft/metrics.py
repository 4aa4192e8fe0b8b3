"""The table of metrics: what each measured number is, and how it is shown.

A task family names its metrics in its settings (:attr:`lft.config.FamilySettings.metrics`); those
of plug-ins join the table when their family is registered. The family computes them
(:meth:`lft.tasks.base.TaskFamily.metrics`). Nothing here imports torch or pandas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from lft.errors import UsageError

SUPPORT = "_support"
"""Ending of a metric's name where it is measured on the support set instead of the query set."""


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: key used in CSV rows.
        label: short name in tables and on axes.
        long_label: the name in full, where the label is short for it.
        better: which values are better.
        share: it lies between 0 and 1, and is shown in per cent.
        unit: written after a number, with its space.
        decimals: digits after the point, where numbers are shown.
        log: drawn on a logarithmic axis.
        chance: guessing reaches a level of its own, which the family's settings give as ``chance``.
        first_of: name of a share; this metric is the first fine-tuning step after which that one is
            100 %, one number for a whole trajectory. NaN means that it never was. For all other
            metrics NaN means that the task diverged.
    """

    name: str
    label: str
    long_label: str = ""
    better: Literal["higher", "lower"] = "lower"
    share: bool = False
    unit: str = ""
    decimals: int = 3
    log: bool = False
    chance: bool = False
    first_of: str | None = None

    @property
    def title(self) -> str:
        """The name in full."""
        return self.long_label or self.label

    @property
    def factor(self) -> int:
        """What a value is multiplied by to be shown in its unit."""
        return 100 if self.share else 1

    @property
    def nan(self) -> Literal["never", "diverged"]:
        """What NaN means: nothing to be found in a sound trajectory, or a task that diverged."""
        return "never" if self.first_of else "diverged"

    def shown(self, value: float) -> str:
        """A value in its unit, with the metric's decimals."""
        return f"{value * self.factor:.{self.decimals}f}{self.unit}"


ASR = Metric("asr", "ASR", "attack success rate", "higher", share=True, unit=" %", decimals=0)
DISTORTION = Metric("distortion", "mean |δ|", "distortion, mean |δ| per pixel")
FIRST_FULL = Metric("first_full", "first step with ASR 100 %", decimals=0, first_of="asr")
ACCURACY = Metric(
    "accuracy", "accuracy", better="higher", share=True, unit=" %", decimals=1, chance=True
)
MSE = Metric("mse", "MSE", "mean squared error", decimals=2, log=True)

COSTS = (
    Metric("cpu_seconds", "CPU time of meta-training", unit=" s", decimals=1),
    Metric("memory_mb", "memory added by meta-training", unit=" MB", decimals=0),
)
"""What a meta-training takes; they stand in its manifest, not among the measurements."""

METRICS: dict[str, Metric] = {}
"""The table of metrics, by name; plug-ins add theirs."""


def register(metric: Metric) -> None:
    """Add a metric of one's own to the table.

    Raises:
        UsageError: it is no metric, or another one has its name.
    """
    if not isinstance(metric, Metric):
        raise UsageError(f"a metric is an instance of lft.metrics.Metric, not {metric!r}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", metric.name) or metric.name.endswith(SUPPORT):
        raise UsageError(
            f"metric {metric.name!r}: a name has small letters, digits and underscores, and does "
            f"not end in {SUPPORT}"
        )
    if METRICS.setdefault(metric.name, metric) != metric:
        raise UsageError(f"there is another metric {metric.name!r}; choose another name")


def metric_of(name: str) -> Metric:
    """Look up a metric, also one measured on the support set; of an unknown one, its name."""
    if name in METRICS or not name.endswith(SUPPORT):
        return METRICS.get(name, Metric(name, name))
    base = metric_of(name.removesuffix(SUPPORT))
    return replace(
        base,
        name=name,
        label=f"{base.label} on the support set",
        long_label=f"{base.title} on the support set",
    )


for _metric in (ASR, DISTORTION, FIRST_FULL, ACCURACY, MSE, *COSTS):
    register(_metric)
