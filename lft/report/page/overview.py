"""The picture at the top of the page: a forest plot of all claims.

Effects are in units of the smallest effect of interest, positive on the claim's side, so that
points, ratios and exponents share one axis. It is linear around 0 and logarithmic far from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from lft.report.claims import CellClaim, load_claims
from lft.report.claims.shown import SYMBOLS, effect_text
from lft.report.page.sections import Judged
from lft.report.scales import Scale

MARKS = {
    "supported": "M0-6.5 6 5H-6Z",
    "contradicted": "M0 6.5 6-5H-6Z",
    "negligible": "M-4.5-4.5H4.5V4.5H-4.5Z",
    "no difference": "M0-6 6 0 0 6-6 0Z",
    "inconclusive": "M-5 0A5 5 0 1 1 5 0 5 5 0 1 1-5 0Z",
    "vacuous": "M-4-4 4 4M-4 4 4-4",
}
"""Shape of each verdict, as an SVG path around the point."""
ENDS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Possible ends of the axis."""
EDGE = 3.0
"""Margin on either side, in per cent of the width."""


class Point(NamedTuple):
    """One claim.

    Attributes:
        at: the effect, in per cent of the width; None if there is none.
        low: lower end of its interval, in the same unit; ``high`` is the upper end.
        beyond_low: whether the interval continues beyond the axis; ``beyond_high`` at the other
            end.
        said: the effect for screen readers.
        share: share of the readings of the paper in which the claim holds; None if unknown.
    """

    judged: Judged
    at: float | None
    low: float | None
    high: float | None
    beyond_low: bool
    beyond_high: bool
    said: str
    share: float | None


class Group(NamedTuple):
    """The claims of one hypothesis."""

    hypothesis: str
    text: str
    points: list[Point]


class Panel(NamedTuple):
    """One section of the paper."""

    title: str
    groups: list[Group]


class Forest(NamedTuple):
    """The whole picture.

    Attributes:
        ticks: labels with their places, in per cent of the width.
        band: ends of the band of effects below the smallest one of interest.
        shares: whether any point has a share of readings.
    """

    panels: list[Panel]
    ticks: list[tuple[str, float]]
    band: tuple[float, float]
    shares: bool


class Span(NamedTuple):
    """An effect and its interval in units of the smallest effect of interest."""

    value: float
    low: float
    high: float


def forest(rows: list[Judged], shares: Mapping[str, float] | None = None) -> Forest:
    """Lay out the forest plot, in the order of the paper's claims.

    Args:
        rows: claims with their verdicts.
        shares: claim -> share of the readings of the paper in which it holds.
    """
    shares, claims = shares or {}, load_claims()
    spans = {row.claim.id: span(row, claims.metrics) for row in rows}
    end = _end(found.value for found in spans.values() if found)
    points = [_point(row, spans[row.claim.id], end, shares.get(row.claim.id)) for row in rows]
    panels = [
        Panel(title, list(_groups(title, points, claims.hypotheses)))
        for title in dict.fromkeys(row.section for row in rows)
    ]
    sizes = [1.0, *(tick for tick in ENDS if tick <= end)]
    ticks = [(_signed(size), _place(size, end)) for size in _mirrored(sizes)]
    band = (_place(-1.0, end), _place(1.0, end))
    return Forest(panels, ticks, band, any(point.share is not None for point in points))


def span(row: Judged, metrics: Mapping[str, Scale]) -> Span | None:
    """Return a claim's effect in units of the smallest effect of interest; None if it has none."""
    verdict = row.row
    if verdict.effect is None or not verdict.margin:
        return None
    ends = [verdict.effect, verdict.low, verdict.high]
    numbers = np.array([np.nan if end is None else end for end in ends])
    if isinstance(row.claim, CellClaim):
        scale = metrics[row.claim.metric]
        numbers = scale.sign * (numbers if scale.scale == "points" else np.log(numbers))
        numbers /= scale.margin
    else:
        numbers /= verdict.margin
    return Span(float(numbers[0]), float(numbers[1:].min()), float(numbers[1:].max()))


def _groups(title: str, points: list[Point], texts: Mapping[str, str]) -> Iterator[Group]:
    for id, text in texts.items():
        mine = [p for p in points if p.judged.row.hypothesis == id and p.judged.section == title]
        if mine:
            yield Group(id, text, mine)


def _point(row: Judged, found: Span | None, end: float, share: float | None) -> Point:
    if found is None:
        return Point(row, None, None, None, False, False, "no effect", share)
    known = np.isfinite(found.low)
    said = f"effect {effect_text(row.row)}, {found.value:.2g} times the smallest of interest"
    return Point(
        row,
        _place(found.value, end),
        _place(found.low, end) if known else None,
        _place(found.high, end) if known else None,
        bool(found.low < -end),
        bool(found.high > end),
        said.replace("-", "−"),
        share,
    )


def _end(values: Iterable[float]) -> float:
    """Return the smallest end of the axis that includes all effects, if not their intervals."""
    largest = max(map(abs, values), default=0.0)
    return next((end for end in ENDS if largest <= end), ENDS[-1])


def _place(value: float, end: float) -> float:
    """Return the place in per cent of the width, rounded."""
    clipped = float(np.clip(value, -end, end))
    return round(50 + (50 - EDGE) * float(np.arcsinh(clipped) / np.arcsinh(end)), 2)


def _signed(size: float) -> str:
    return f"{size:+g}".replace("-", "−") if size else "0"


def _mirrored(sizes: list[float]) -> list[float]:
    return [*(-size for size in reversed(sizes)), 0.0, *sizes]


def legend() -> list[tuple[str, str, str]]:
    """Return each verdict with its symbol and shape."""
    return [(word, SYMBOLS[word], MARKS[word]) for word in SYMBOLS]
