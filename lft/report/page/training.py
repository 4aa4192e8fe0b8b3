"""Curves of all meta-trainings, and whether each was long enough and stable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lft.config import Order, Profile, Run
from lft.report.statistics import Floats
from lft.report.style import ORDERS, Style, theme
from lft.results.folder import Results
from lft.results.history import read_history
from lft.results.trained import recorded, untrained

WIDTH, HEIGHT, ROOM = 240.0, 44.0, 3.0
"""Size of a curve's picture, and the margin around it."""


class Training(NamedTuple):
    """The meta-trainings of one cell, of all seeds.

    Attributes:
        lines: SVG paths of the meta-validation scores, one per seed.
        words: how the trainings ended, each with its number of seeds.
        best: the lowest score of each seed.
        batches: meta-batches at the lowest score, and in total, of each seed.
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
    """Yield the existing meta-trainings, in the profile's order."""
    style, folder = Style(profile), Results(profile, results)
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
            list(Counter(_words(folder, runs)).items()),
            ", ".join(f"{curve[:, 1].min():.3g}" for curve in curves) or "–",
            ", ".join(f"{_best(curve):.0f} of {curve[-1, 0]:.0f}" for curve in curves) or "–",
        )


def _cells(profile: Profile, results: Path) -> dict[tuple[str, str, str, Order], list[Run]]:
    """Return the existing seeds of every meta-trained cell."""
    cells: dict[tuple[str, str, str, Order], list[Run]] = {}
    for name, experiment in profile.experiments.items():
        for run in profile.runs(name):
            learned = experiment.base_method(run.method).learns != "step_size"
            if learned and (results / run.folder / "history.csv").is_file():
                cells.setdefault((name, run.trained_on, run.method, run.order), []).append(run)
    return cells


def _words(folder: Results, runs: list[Run]) -> Iterator[str]:
    """Yield how each training ended, by its checks."""
    for run in runs:
        manifest, checks = folder.manifest(run), recorded(folder, run)
        failed = {check.name for check in checks if check.passed is False}
        if manifest is not None and manifest.status == "diverged":
            yield "diverged"
        elif "longer does not help" in failed:
            yield "still improving"
        elif failed:
            yield "not trained"
        else:
            yield "not recorded" if untrained(checks) is None else "trained"


def _scores(folder: Path) -> Floats:
    """Return meta-batches and scores, (validations, 2)."""
    history = read_history(folder / "history.csv").dropna(subset=["validation"])
    return history[["meta_step", "validation"]].to_numpy(float)


def _best(curve: Floats) -> float:
    return float(curve[curve[:, 1].argmin(), 0])


def _lines(curves: list[Floats]) -> list[str]:
    """Return paths on one scale, which spans all meta-batches and scores."""
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
