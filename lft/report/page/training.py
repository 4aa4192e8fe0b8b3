"""Every meta-training's curve, and whether it came to its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lft.config import Order, Profile, Run
from lft.report.effects import Measured
from lft.report.statistics import Floats
from lft.report.style import ORDERS, Style, theme
from lft.results.history import read_history

WIDTH, HEIGHT, ROOM = 240.0, 44.0, 3.0
"""Of a curve's picture, and what stays free around it."""
WORDS = {False: "trained", True: "still improving", None: "not recorded"}
"""What :meth:`lft.report.effects.Measured.untrained` says of a seed."""


class Training(NamedTuple):
    """The meta-trainings of one cell, of all seeds.

    Attributes:
        lines: SVG paths of the meta-validation scores, one of each seed.
        words: whether the trainings came to their end, with how many seeds each.
        best: the lowest score of each seed.
        batches: the meta-batch that it came after, of how many.
    """

    experiment: str
    trained_on: str
    label: str
    color: str
    lines: list[str]
    words: list[tuple[str, int]]
    best: str
    batches: str


def trainings(profile: Profile, results: Path) -> Iterator[Training]:
    """The meta-trainings that there are, in the profile's order."""
    style, measured = Style(profile), Measured(profile, results, [])
    for (name, trained_on, method, order), runs in _cells(profile, results).items():
        experiment = profile.experiment(name)
        several = f", {ORDERS[order]}" * (len(experiment.orders) > 1)
        curves = [curve for run in runs if len(curve := _scores(results / run.folder))]
        yield Training(
            name,
            style.mixture(name, trained_on),
            experiment.label(method) + several,
            theme()[experiment.base_method(method).color],
            _lines(curves),
            list(Counter(_words(measured, runs)).items()),
            ", ".join(f"{curve[:, 1].min():.3g}" for curve in curves) or "–",
            ", ".join(f"{_best(curve):.0f} of {curve[-1, 0]:.0f}" for curve in curves) or "–",
        )


def _cells(profile: Profile, results: Path) -> dict[tuple[str, str, str, Order], list[Run]]:
    """The seeds of every cell that was meta-trained, as far as they are there."""
    cells: dict[tuple[str, str, str, Order], list[Run]] = {}
    for name, experiment in profile.experiments.items():
        for run in profile.runs(name):
            learned = experiment.base_method(run.method).learns != "step_size"
            if learned and (results / run.folder / "history.csv").is_file():
                cells.setdefault((name, run.trained_on, run.method, run.order), []).append(run)
    return cells


def _words(measured: Measured, runs: list[Run]) -> Iterator[str]:
    """Whether each training came to its end."""
    first = runs[0]
    cell = (first.trained_on, first.trained_on, first.method, first.order)
    untrained = dict(zip(measured.seeds, measured.untrained(first.experiment, cell), strict=True))
    for run in runs:
        manifest = measured.folder.manifest(run)
        diverged = manifest is not None and manifest.status == "diverged"
        yield "diverged" if diverged else WORDS[untrained[run.seed]]


def _scores(folder: Path) -> Floats:
    """(validations, 2) meta-batches and scores."""
    history = read_history(folder / "history.csv").dropna(subset=["validation"])
    return history[["meta_step", "validation"]].to_numpy(float)


def _best(curve: Floats) -> float:
    return float(curve[curve[:, 1].argmin(), 0])


def _lines(curves: list[Floats]) -> list[str]:
    """Paths on one scale: from the first meta-batch to the last, from the best score to the
    worst."""
    if not curves:
        return []
    scores = np.concatenate([curve[:, 1] for curve in curves])
    scores = scores[np.isfinite(scores)]
    last = max(float(curve[-1, 0]) for curve in curves)
    if not len(scores) or not last:
        return []
    low, spread = float(scores.min()), float(np.ptp(scores)) or 1.0
    found = []
    for curve in curves:
        x = ROOM + (WIDTH - 2 * ROOM) * curve[:, 0] / last
        y = HEIGHT - ROOM - (HEIGHT - 2 * ROOM) * (curve[:, 1] - low) / spread
        points = [f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b)]
        found.append("M" + "L".join(points))
    return found
