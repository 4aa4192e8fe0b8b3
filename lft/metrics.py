"""The table of metrics: the meaning and format of each measured number.

A task family names its metrics in its settings (:attr:`lft.config.FamilySettings.metrics`) and
computes them (:meth:`lft.tasks.base.TaskFamily.metrics`). A plug-in's metrics join the table when
its family is registered. This module imports neither torch nor pandas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from lft.errors import UsageError

SUPPORT = "_support"
"""Suffix of a metric's name when it is measured on the support set, not the query set."""


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: key in CSV rows.
        label: short name in tables and on axes.
        long_label: full name, if the label abbreviates it.
        better: whether higher or lower values are better.
        share: whether values lie in [0, 1] and are shown in per cent.
        unit: text after a number, with its leading space.
        decimals: digits after the decimal point in displayed numbers.
        log: whether to plot on a logarithmic axis.
        chance: whether guessing has a known level, ``chance`` in the family's settings.
        first_of: name of a share. If set, this metric is the first fine-tuning step after which
            that share is 100 %, one number per trajectory, and NaN means never. For other metrics,
            NaN means that the task diverged.
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
        """The full name."""
        return self.long_label or self.label

    @property
    def factor(self) -> int:
        """Factor from stored values to displayed ones."""
        return 100 if self.share else 1

    @property
    def nan(self) -> Literal["never", "diverged"]:
        """Meaning of NaN: the share never reached 100 %, or the task diverged."""
        return "never" if self.first_of else "diverged"

    def shown(self, value: float) -> str:
        """Format a value with the metric's unit and decimals."""
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
"""Costs of a meta-training; its manifest records them, not the measurements."""

METRICS: dict[str, Metric] = {}
"""The table of metrics, by name; plug-ins add rows."""


def register(metric: Metric) -> None:
    """Add a metric to the table.

    Raises:
        UsageError: the argument is not a metric, or another metric has its name.
    """
    if not isinstance(metric, Metric):
        raise UsageError(f"a metric must be an instance of lft.metrics.Metric, not {metric!r}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", metric.name) or metric.name.endswith(SUPPORT):
        raise UsageError(
            f"metric {metric.name!r}: use only lowercase letters, digits and underscores in a "
            f"name, and do not end it in {SUPPORT}"
        )
    if METRICS.setdefault(metric.name, metric) != metric:
        raise UsageError(f"a metric named {metric.name!r} already exists; choose another name")


def metric_of(name: str) -> Metric:
    """Look up a metric; a name with the suffix :data:`SUPPORT` gives the support-set version.

    An unknown name gives a metric with that name as its label.
    """
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
