"""Compare our numbers with the paper's, and the paper's with each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from lft.config import Order, Profile
from lft.report.claims.model import STEP, load_claims, load_paper
from lft.report.effects import CellName, Measured
from lft.report.scales import ARRIVAL, Scale
from lft.report.statistics import Floats, Interval, holm, prediction_interval, prediction_p

EXPERIMENTS = {"1": "attack", "2": "classification"}
"""Experiment of each of the paper's tables."""
WIDEST = 4
"""Widest prediction interval, in smallest effects of interest, that can tell two numbers apart."""
FIRST: Order = "first"

Agreement = Literal["agrees", "differs", "cannot tell"]


class Compared(NamedTuple):
    """One printed number beside the 95 % prediction interval for one more seed of ours.

    Attributes:
        value: the printed number.
        mean: our mean; ``low`` and ``high`` are the ends of the prediction interval.
        p: p of the prediction, Holm-adjusted over the printed numbers of the profile.
        verdict: from the interval, not adjusted.
    """

    table: str
    trained_on: str
    tested_on: str
    method: str
    metric: str
    printed: str
    value: float
    mean: float
    low: float
    high: float
    n_seeds: int
    p: float
    verdict: Agreement
    note: str


class Mixed(NamedTuple):
    """A printed number for both sources that is not the average of the two single-source numbers.

    Attributes:
        average: the equal average.
        share_low: smallest share of MNIST among the test tasks that explains the printed number,
            allowing for rounding; NaN if none does.
        share_high: largest such share.
    """

    trained_on: str
    method: str
    metric: str
    mnist: str
    cifar10: str
    both: str
    average: float
    share_low: float
    share_high: float


def agreement(profile: Profile, results: Path) -> list[Compared]:
    """Compare every printed number of the profile's experiments with ours."""
    claims = load_claims()
    measured = Measured(profile, results, sorted(claims.metrics))
    rows = []
    for (trained_on, tested_on, method, metric), row in load_paper().items():
        experiment = EXPERIMENTS[row["table"]]
        cell = (trained_on, tested_on, method, FIRST)
        if (experiment, *cell) not in measured.status or experiment not in profile.experiments:
            continue
        scale, printed = claims.metrics[metric], float(row["value"])
        values = _seed_means(measured, experiment, cell, metric, scale)
        interval = _predicted(values[np.isfinite(values)], scale)
        word = _agreement(printed, interval, scale, len(profile.seeds))
        never = (
            metric == ARRIVAL
            and not (values <= profile.experiments[experiment].testing.steps).any()
        )
        note = "; ".join(filter(None, ("we never reach it" * never, row["note"])))
        rows.append(
            Compared(
                row["table"], trained_on, tested_on, method, metric, row["printed"], printed,
                *interval[:4], _p(values, printed, scale), word, note,
            )
        )  # fmt: skip
    adjusted = holm([row.p for row in rows])
    return [row._replace(p=p) for row, p in zip(rows, adjusted.tolist(), strict=True)]


def unexplained() -> list[Mixed]:
    """Return the printed numbers for both sources that no equal mixture explains."""
    return list(_mixtures())


def _mixtures() -> Iterator[Mixed]:
    paper = load_paper()
    for (trained_on, tested_on, method, metric), row in paper.items():
        singles = [
            paper.get((trained_on, source, method, metric)) for source in ("mnist", "cifar10")
        ]
        if "+" not in tested_on or None in singles:
            continue
        mnist, cifar10 = (_rounded(single) for single in singles if single is not None)
        both = _rounded(row)
        low, high = (mnist[0] + cifar10[0]) / 2, (mnist[1] + cifar10[1]) / 2
        if low <= both[1] and both[0] <= high:
            continue
        first, second = (single["printed"] for single in singles if single is not None)
        average = (low + high) / 2
        yield Mixed(
            trained_on, method, metric, first, second, row["printed"], average,
            *_shares(mnist, cifar10, both),
        )  # fmt: skip


def _rounded(row: dict[str, str]) -> tuple[float, float]:
    """Return the range of numbers that round to a printed one."""
    digits = row["printed"].split(" ")[0]
    decimals = len(digits.partition(".")[2]) + (2 if row["printed"].endswith("%") else 0)
    half = 0.5 * 10.0**-decimals
    return float(row["value"]) - half, float(row["value"]) + half


def _shares(
    mnist: tuple[float, float], cifar10: tuple[float, float], both: tuple[float, float]
) -> tuple[float, float]:
    """Find the smallest and largest weight w in [0, 1] with w MNIST + (1 − w) CIFAR-10 = both."""
    weights = np.linspace(0, 1, 1001)
    low, high = (weights * m + (1 - weights) * c for m, c in zip(mnist, cifar10, strict=True))
    possible = weights[(low <= both[1]) & (both[0] <= high)]
    return (float(possible[0]), float(possible[-1])) if len(possible) else (np.nan, np.nan)


def _seed_means(
    measured: Measured, experiment: str, cell: CellName, metric: str, scale: Scale
) -> Floats:
    """Return the number that the paper's tables print, for each seed, (seeds,); NaN if missing."""
    if set(measured.status[experiment, *cell].values()) <= {"missing", "not applicable"}:
        return np.full(len(measured.seeds), np.nan)
    if metric == ARRIVAL:
        return measured.arrivals(experiment, cell)
    step = measured.last_step(experiment, STEP)
    values, _ = measured.pair(experiment, cell, cell, metric, scale, step)
    return np.asarray(values.mean(1))


def _predicted(values: Floats, scale: Scale) -> Interval:
    """Compute the prediction interval on the metric's scale, in the metric's unit."""
    if scale.scale == "points":
        return prediction_interval(values, bounds=(0.0, 1.0))
    logs = prediction_interval(np.log(values))
    mean, low, high = (float(np.exp(number)) for number in logs[:3])
    return logs._replace(mean=mean, low=low, high=high)


def _p(values: Floats, printed: float, scale: Scale) -> float:
    """Return the p that one more seed is as far from the mean as a printed number.

    It is NaN if a seed is missing.
    """
    if scale.scale == "points":
        return prediction_p(values, printed)
    return prediction_p(np.log(values), float(np.log(printed)))


def _agreement(printed: float, interval: Interval, scale: Scale, planned: int) -> Agreement:
    if interval.n < planned or np.isnan(interval.low):
        return "cannot tell"
    wide = interval.high - interval.low
    if scale.scale == "ratio":
        wide = float(np.log(interval.high / interval.low))
    if wide > WIDEST * scale.margin:
        return "cannot tell"
    return "agrees" if interval.low <= printed <= interval.high else "differs"
