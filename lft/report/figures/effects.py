"""The effect of every claim against the number of fine-tuning steps.

The paper does not give this number for Table 2 and Figure 4.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes

from lft.report.claims import CellClaim, Claims, effects_over_steps, load_claims
from lft.report.figures.base import PAPER_STEP, Drawing, Measured, decades, noted, subplots
from lft.report.style import INK

COLUMNS = 4
WIDTH = 30
"""Letters per line of a panel's title."""


def effects(measured: Measured) -> Iterator[Drawing]:
    """Draw a figure per experiment, a panel per claim: the effect with its interval over seeds."""
    claims = load_claims()
    data = effects_over_steps(measured.profile, measured.results, claims)
    for name, experiment in measured.profile.experiments.items():
        chosen = [
            claim
            for claim in claims.claims
            if isinstance(claim, CellClaim)
            and claim.experiment == name
            and claim.id in set(data["claim"])
        ]
        if chosen:
            rows = data[data["claim"].isin([claim.id for claim in chosen])]
            figure, axes = subplots(-(-len(chosen) // COLUMNS), COLUMNS, height=2.0, share=False)
            for axis, claim in zip(axes.flat, chosen, strict=False):
                _panel(axis, claim, rows[rows["claim"] == claim.id], claims)
            for axis in axes.flat[len(chosen) :]:
                axis.set_visible(False)
            caption = (
                f"{experiment.title}: the effect that each claim speaks of, against the "
                "fine-tuning steps, with its 95 % t interval over seeds (not adjusted for the "
                "number of steps and claims). Dashed: no effect; dotted: the smallest effect of "
                "interest; vertical: the claim's step. The claim's side is above 0 for ASR and "
                "accuracy, which are shown in points, and below 1 for all else, which are ratios."
            )
            yield Drawing(
                f"figure-effects-{name}", "figures", noted(caption, measured.style, name),
                _in_words(chosen, rows), figure, rows,
            )  # fmt: skip


def _panel(axis: Axes, claim: CellClaim, rows: pd.DataFrame, claims: Claims) -> None:
    scale = claims.metrics[claim.metric]
    points = scale.scale == "points"
    factor, nothing = (100, 0.0) if points else (1, 1.0)
    axis.plot(rows["step"], factor * rows["effect"], color=INK, lw=1.2)
    axis.fill_between(
        rows["step"], factor * rows["low"], factor * rows["high"], color=INK, alpha=0.15, lw=0
    )
    margin = factor * scale.smallest
    around = (-margin, margin) if points else (1 / margin, margin)
    axis.axhline(nothing, color=INK, lw=0.7, ls="--")
    for edge in around:
        axis.axhline(edge, color=INK, lw=0.6, ls=":")
    axis.axvline(min(claim.step, rows["step"].max()), color=INK, lw=0.6, alpha=0.5)
    if not points:
        axis.set_yscale("log")
        decades(axis)
    title = textwrap.wrap(claim.claim, WIDTH)
    axis.set_title("\n".join(title), fontsize=6.5)
    axis.set_ylabel("points" if points else "ratio")
    axis.set_xlabel("fine-tuning steps")


def _in_words(chosen: list[CellClaim], rows: pd.DataFrame) -> str:
    """Describe each effect at an early step, after the paper's steps and at the end."""
    parts = []
    for claim in chosen:
        line = rows[rows["claim"] == claim.id].set_index("step")["effect"]
        steps = dict.fromkeys((line.index[1], min(PAPER_STEP, line.index[-1]), line.index[-1]))
        values = ", ".join(f"{line[step]:.2g} at {step}" for step in steps if step in line.index)
        parts.append(f"{claim.claim}: {values}")
    return "; ".join(parts) + "."
