"""The paper's printed numbers beside ours and beside each other, as the page shows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lft.config import Profile
from lft.methods import get_method
from lft.metrics import Metric, metric_of
from lft.report.claims.agreement import EXPERIMENTS, agreement, unexplained
from lft.report.scales import ARRIVAL
from lft.report.style import Style

SOURCES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
"""The paper's names of its sources."""


def compared(profile: Profile, results: Path) -> Iterator[dict[str, object]]:
    """Yield each printed number beside ours, with names and units in place of keys."""
    style = Style(profile)
    for row in agreement(profile, results):
        name = EXPERIMENTS[row.table]
        experiment, metric = profile.experiment(name), metric_of(row.metric)
        never = row.metric == ARRIVAL and row.mean > experiment.testing.steps
        yield row._asdict() | {
            "trained_on": style.mixture(name, row.trained_on),
            "tested_on": style.mixture(name, row.tested_on),
            "method": experiment.label(row.method),
            "metric": metric.label,
            "ours": "never" if never else _shown(metric, row.mean),
            "interval": _shown(metric, row.low, row.high),
        }


def mixed() -> Iterator[dict[str, object]]:
    """Yield each printed number that is not the average of two others, as :func:`compared`."""
    for row in unexplained():
        metric = metric_of(row.metric)
        yield row._asdict() | {
            "trained_on": " + ".join(SOURCES[source] for source in row.trained_on.split("+")),
            "method": get_method(row.method).label,
            "metric": metric.label,
            "average": _shown(metric, row.average),
        }


def _shown(metric: Metric, *values: float) -> str:
    """One number, or the two ends of an interval, in the metric's unit; – if unknown."""
    if any(value != value for value in values):
        return "–"
    return " to ".join(f"{value * metric.factor:.3g}" for value in values) + metric.unit
