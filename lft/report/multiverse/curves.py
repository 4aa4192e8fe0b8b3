"""Specification curves (Simonsohn et al., 2020): universes sorted by effect, above their forks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lft.report.claims.model import CellClaim
from lft.report.figures.base import Drawing
from lft.report.multiverse.analysis import Reading
from lft.report.multiverse.outcomes import Outcome
from lft.report.multiverse.shares import Share
from lft.report.scales import Scale
from lft.report.style import INK

COLORS = {"for": "#0a6b3d", "within": "#8a929e", "against": "#a32020"}
MARKERS = {"for": "^", "within": "o", "against": "v"}
LINES = {"reference": "--", "paper": "-."}
ROW = 0.13
"""Inches per level."""
CURVE = 2.2
"""Height of the curve, in inches."""
WIDTH = 8.0


def curves(reading: Reading) -> Iterator[Drawing]:
    """Draw every claim that at least one universe decides."""
    of_claim = {row.claim: row for row in reading.shares}
    for experiment in reading.experiments:
        for claim in reading.explored(experiment):
            judged = sorted(reading.judged(claim.id), key=lambda one: one.effect)
            if judged:
                yield _drawing(reading, claim, judged, of_claim[claim.id])


def _drawing(reading: Reading, claim: CellClaim, judged: list[Outcome], share: Share) -> Drawing:
    levels = reading.levels(claim.experiment, [one.universe for one in judged])
    rows = [(fork.name, level) for fork in reading.forks(claim.experiment)
            if fork.name in levels for level in fork.groups]  # fmt: skip
    height = CURVE + ROW * len(rows)
    figure = Figure(figsize=(WIDTH, height + 0.8))
    above, below = figure.subplots(
        2, 1, sharex=True, height_ratios=[CURVE, ROW * max(1, len(rows))]
    )
    scale = reading.claims.metrics[claim.metric]
    spread = np.sqrt(reading.components(claim.id).seed)
    _curve(above, scale, judged, spread, reading.marks(claim))
    _strips(below, rows, levels)
    caption = (
        f"{claim.claim}: the effect in each of {len(judged)} readings, sorted, above the claim's "
        "side; shaded, ± one standard deviation between seeds of one reading. Dotted: the smallest "
        "effect of interest. Below, the level that each reading took of every fork."
    )
    return Drawing(
        f"curve-{claim.id}", "multiverse", caption, in_words(claim, share), figure,
        _data(judged, levels, scale),
    )  # fmt: skip


def in_words(claim: CellClaim, share: Share) -> str:
    """Describe the share of readings in one sentence."""
    if not share.judged:
        return f"{claim.claim}: no reading decides it."
    return (
        f"{claim.claim}: holds in {share.for_it:.0%} of {share.judged} readings "
        f"({share.low:.0%} to {share.high:.0%}), the opposite in {share.against:.0%}, and "
        f"{share.within:.0%} are within the smallest effect of interest; {share.vacuous} are "
        f"vacuous and {share.diverged} diverged."
    )


def _curve(
    axis: Axes, scale: Scale, judged: list[Outcome], spread: float, marks: dict[str, float]
) -> None:
    factor = 100 if scale.scale == "points" else 1
    x, effects = np.arange(len(judged)), factor * np.array([one.effect for one in judged])
    if np.isfinite(spread):
        around = factor * spread
        axis.fill_between(x, effects - around, effects + around, color=INK, alpha=0.1, lw=0)
    for word, color in COLORS.items():
        chosen = np.array([one.word == word for one in judged])
        axis.plot(x[chosen], effects[chosen], MARKERS[word], color=color, ms=3.5, label=word)
    axis.axhline(0, color=INK, lw=0.7)
    for sign in (-1, 1):
        axis.axhline(sign * factor * scale.margin, color=INK, lw=0.6, ls=":")
    for name, effect in marks.items():
        axis.axhline(factor * effect, color=INK, lw=0.9, ls=LINES[name], label=name)
    axis.set_ylabel("points" if scale.scale == "points" else "log ratio, claim's side up")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, fontsize=7, borderaxespad=0.2)


def _strips(axis: Axes, rows: list[tuple[str, str]], levels: dict[str, list[str]]) -> None:
    for place, (fork, level) in enumerate(rows):
        taken: NDArray[np.intp] = np.flatnonzero([name == level for name in levels[fork]])
        axis.plot(taken, np.full(len(taken), place), "|", color=INK, ms=5, mew=1.3)
        if place and rows[place - 1][0] != fork:
            axis.axhline(place - 0.5, color=INK, lw=0.4, alpha=0.4)
    axis.set_yticks(range(len(rows)), [f"{fork}: {level}" for fork, level in rows], fontsize=6)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(visible=False)
    axis.set_xticks([])
    axis.set_xlabel("readings")


def _data(judged: list[Outcome], levels: dict[str, list[str]], scale: Scale) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "universe": [one.universe for one in judged],
            "outcome": [one.word for one in judged],
            "lead": [one.effect for one in judged],
            "effect": [scale.raw(one.effect) for one in judged],
            "seeds": [len(one.effects) for one in judged],
            **levels,
        }
    )
