"""Verdicts as text: effects, intervals, and what an undecided claim would need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lft.report.claims.verdict import Verdict
from lft.report.statistics import ALPHA

SYMBOLS = {
    "supported": "✓",
    "contradicted": "✗",
    "negligible": "≈",
    "no difference": "=",
    "inconclusive": "?",
    "vacuous": "∅",
}
"""Verdicts in the order of the page's counts."""


def effect_text(row: Verdict) -> str:
    """Format an effect with its interval.

    For example ``+59.0 [45.6, 72.4] points`` or ``× 1.84 [0.56, 6.11]``.
    """
    if row.effect is None:
        return "–"
    text = amount(row.effect, row.unit)
    if row.low is not None and row.high is not None:
        low, high = (_number(end, row.unit) for end in (row.low, row.high))
        text += f" [{low}, {high}]" + " (cut)" * row.cut
    if row.unit == "points":
        text += " points"
    return text


def amount(effect: float, unit: str) -> str:
    """Format an effect without its interval: points with a sign, a ratio with ×."""
    if unit == "ratio":
        return f"× {_number(effect, unit)}"
    sign = "+" if unit == "points" and effect > 0 else ""
    return sign + _number(effect, unit)


def needed_text(row: Verdict) -> str:
    """Say how many seeds an inconclusive claim needs, and what its seeds could have shown."""
    if row.verdict != "inconclusive" or row.margin is None or row.n_seeds < 2:
        return ""
    if row.kind == "wider":  # the effects choose its step, so their spread says little
        return ""
    seeds = "more than 100,000" if row.seeds_needed is None else f"{row.seeds_needed:,}"
    if row.detectable is None:
        return "equal seeds: their spread is not known"
    size = _size(row.margin, row.unit)
    return f"{seeds} seeds would find {size}; these could have shown {_shown(row)}"


def skewed_text(row: Verdict) -> str:
    """Warn if the seeds do not look normal."""
    if row.skew_p is None or row.skew_p >= ALPHA:
        return ""
    return f"the seeds are skewed (p = {row.skew_p:.2g}), which t intervals do not allow for"


def skewness_note(rows: Sequence[Verdict]) -> str:
    """Say in how many claims the seeds are skewed, and how many to expect if none are.

    It is empty if there are too few seeds to tell.
    """
    tested = [row.skew_p for row in rows if row.skew_p is not None]
    if not tested:
        return ""
    skewed = sum(p < ALPHA for p in tested)
    return (
        f"The seeds are skewed (D'Agostino's test at 5 %) in {skewed} of {len(tested)} claims, "
        f"where about {ALPHA * len(tested):.0f} are expected of normal ones"
    )


def failures_text(row: Verdict, side: str) -> str:
    """Format the numbers of diverged and untrained seeds of one cell."""
    diverged, untrained = (getattr(row, f"{side}_{what}") for what in ("diverged", "untrained"))
    if diverged is None:
        return "–"
    return f"{diverged} / {'not recorded' if untrained is None else untrained}"


def _shown(row: Verdict) -> str:
    limit = {"points": 1.0, "ratio": 100.0}.get(row.unit, np.inf)
    if row.detectable is None or row.detectable > limit:
        return "no effect that can occur" if row.unit == "points" else f"none below × {limit:.0f}"
    return _size(row.detectable, row.unit)


def _size(effect: float, unit: str) -> str:
    if unit == "points":
        return f"{100 * effect:.3g} points"
    return f"× {effect:.3g}" if unit == "ratio" else f"{effect:.3g}"


def _number(value: float, unit: str) -> str:
    if unit == "points":
        return f"{100 * value:.1f}".replace("-", "−")
    text = f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"
    return text.replace("-", "−")
