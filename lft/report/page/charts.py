"""The two small pictures of a claim's card.

One shows the seeds beside the paper's number, the other the effect against fine-tuning steps. The
functions convert numbers to coordinates; the template draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lft.report.statistics import Floats

LEFT, RIGHT = 12.0, 340.0
"""Ends of the axis of the seeds' picture."""
CURVE_LEFT, TOP, BOTTOM = 44.0, 8.0, 108.0
"""Edges of the curve's frame; its right edge is RIGHT."""
LANE = 36.0
"""Height of a lane with its name."""
MOST = 60
"""Longer curves are thinned to about this many points."""
MOST_TICKS = 7
"""Largest number of labels that fit beside a curve."""
ROOM = 0.75
"""Largest height that a curve's frame adds for the interval on either side, in heights of the
curve."""


class Lane(NamedTuple):
    """One method, or one experiment of the theory.

    Attributes:
        color: as CSS.
        values: one per seed.
        paper: the printed number; NaN if there is none.
    """

    name: str
    color: str
    values: Floats
    paper: float = np.nan


class Drawn(NamedTuple):
    """A lane with coordinates instead of numbers."""

    name: str
    color: str
    y: float
    dots: list[float]
    mean: float | None
    paper: float | None


class Strip(NamedTuple):
    """The seeds' picture.

    Attributes:
        lanes: one per method or experiment.
        ticks: labels with their coordinates.
        lines: coordinates of vertical lines, 0 first.
        height: of all lanes.
        said: text for screen readers.
    """

    lanes: list[Drawn]
    ticks: list[tuple[str, float]]
    lines: list[float]
    height: float
    said: str


class Curve(NamedTuple):
    """The picture of the effect against the steps.

    Attributes:
        line: SVG path of the effect; ``band`` is that of its interval.
        ticks_x: labels with their coordinates, as ``ticks_y``.
        nothing: coordinate of no effect.
        margins: coordinates of ± the smallest effect of interest.
        step: coordinate of the claim's step.
        first: coordinate of step 0.
        said: text for screen readers.
    """

    line: str
    band: str
    ticks_x: list[tuple[str, float]]
    ticks_y: list[tuple[str, float]]
    nothing: float
    margins: tuple[float, float]
    step: float
    first: float
    said: str


def strip(
    lanes: Sequence[Lane],
    shown: Callable[[float], str],
    *,
    logarithmic: bool = False,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    lines: Sequence[float] = (),
) -> Strip | None:
    """Draw lanes with a dot for each seed; None if there is no number to draw.

    Args:
        lanes: numbers.
        shown: formats a number as a tick's label.
        logarithmic: whether the axis is.
        bounds: smallest and largest possible number.
        lines: numbers that get a vertical line.
    """
    numbers = np.concatenate([*(np.append(lane.values, lane.paper) for lane in lanes), lines])
    numbers = numbers[np.isfinite(numbers) & ((numbers > 0) | (not logarithmic))]
    if not len(numbers):
        return None
    ticks = _decades(numbers) if logarithmic else _round_numbers(numbers, bounds)
    ends = np.log([ticks[0], ticks[-1]]) if logarithmic else np.array([ticks[0], ticks[-1]])

    def place(value: float) -> float | None:
        if not np.isfinite(value) or (logarithmic and value <= 0):
            return None
        at = np.log(value) if logarithmic else value
        return round(LEFT + (RIGHT - LEFT) * float((at - ends[0]) / (ends[1] - ends[0])), 1)

    drawn = []
    for index, lane in enumerate(lanes):
        finite = lane.values[np.isfinite(lane.values)]
        centre = np.exp(np.log(finite).mean()) if logarithmic and len(finite) else np.nan
        mean = centre if logarithmic else finite.mean() if len(finite) else np.nan
        dots = [at for value in finite if (at := place(value)) is not None]
        y = LANE * (index + 0.7)
        drawn.append(Drawn(lane.name, lane.color, y, dots, place(mean), place(lane.paper)))
    labels = [(shown(tick), at) for tick in ticks if (at := place(tick)) is not None]
    places = [at for value in lines if (at := place(value)) is not None]
    said = "; ".join(_seeds_in_words(lane, shown) for lane in lanes)
    return Strip(drawn, labels, places, LANE * len(lanes) + 4.0, said)


def curve(
    steps: Floats, leads: Floats, low: Floats, high: Floats, margin: float, at: float,
    shown: Callable[[float], str], ticks: Callable[[float, float], Sequence[float]],
) -> Curve | None:  # fmt: skip
    """Draw leads with their interval against the steps; None for fewer than two known leads.

    Args:
        steps: (n,).
        leads: (n,), the claim's side above.
        low: (n,) lower ends of the interval.
        high: (n,) upper ends.
        margin: smallest effect of interest.
        at: the claim's step.
        shown: formats a lead as a tick's label.
        ticks: chooses the leads with a label.
    """
    known = np.isfinite(leads)
    if known.sum() < 2:
        return None
    every = -(-int(known.sum()) // MOST)
    steps, leads, low, high = (values[known][::every] for values in (steps, leads, low, high))
    least, most = _frame(leads, low, high, margin)
    last = float(steps[-1])

    def x(step: float) -> float:
        return round(CURVE_LEFT + (RIGHT - CURVE_LEFT) * step / last, 1)

    def y(lead: float) -> float:
        share = (float(np.clip(lead, least, most)) - least) / (most - least)
        return round(BOTTOM - (BOTTOM - TOP) * share, 1)

    sure = np.isfinite(low) & np.isfinite(high)
    outline = [(x(s), y(h)) for s, h in zip(steps[sure], high[sure], strict=True)]
    outline += [(x(s), y(h)) for s, h in zip(steps[sure][::-1], low[sure][::-1], strict=True)]
    return Curve(
        _path([(x(s), y(lead)) for s, lead in zip(steps, leads, strict=True)]),
        _path(outline) + "Z" * bool(outline),
        [(f"{step:g}", x(step)) for step in _round_numbers(np.array([0.0, last]), (0.0, last))],
        [(shown(lead), y(lead)) for lead in ticks(least, most)],
        y(0.0),
        (y(margin), y(-margin)),
        x(min(at, last)),
        CURVE_LEFT,
        _curve_in_words(steps, leads, at, shown),
    )


def _seeds_in_words(lane: Lane, shown: Callable[[float], str]) -> str:
    numbers = ", ".join(shown(value) for value in lane.values if np.isfinite(value)) or "none"
    return f"{lane.name}: {numbers}" + f", paper {shown(lane.paper)}" * bool(
        np.isfinite(lane.paper)
    )


def _curve_in_words(steps: Floats, leads: Floats, at: float, shown: Callable[[float], str]) -> str:
    """Describe the effect at an early step, at the claim's step and at the end."""
    near = int(np.abs(steps - at).argmin())
    chosen = dict.fromkeys((min(1, len(steps) - 1), near, len(steps) - 1))
    return ", ".join(f"{shown(float(leads[i]))} after {steps[i]:g} steps" for i in chosen)


def _frame(leads: Floats, low: Floats, high: Floats, margin: float) -> tuple[float, float]:
    """Return the frame's ends: they include the curve, the margins and part of the interval."""
    least = min(float(leads.min()), -1.5 * margin)
    most = max(float(leads.max()), 1.5 * margin)
    room = ROOM * (most - least)
    lowest, highest = float(np.nanmin([*low, least])), float(np.nanmax([*high, most]))
    return max(lowest, least - room), min(highest, most + room)


def even_ticks(least: float, most: float) -> list[float]:
    """Return two to six round numbers between two ends."""
    step = _step((most - least) / 3)
    first, last = int(np.ceil(least / step)), int(np.floor(most / step))
    return [step * number for number in range(first, last + 1)]


def ratio_ticks(least: float, most: float) -> list[float]:
    """Return logarithms of round ratios between two ends around 0, at most :data:`MOST_TICKS`."""
    decades = 10.0 ** np.arange(1 + round(max(-least, most) / np.log(10)))
    wide = [np.outer(decades, parts) for parts in ((1, 1.5, 2, 3, 5), (1, 2, 5))]
    for ratios in (1.1 ** np.arange(2 * MOST_TICKS), *wide, *(decades[::n] for n in (1, 2, 3, 6))):
        above = np.log(ratios).ravel()
        ticks = np.unique([-above, above])
        ticks = ticks[(least <= ticks) & (ticks <= most)]
        if len(ticks) <= MOST_TICKS:
            break
    return list(ticks)


def _round_numbers(numbers: Floats, bounds: tuple[float, float]) -> list[float]:
    """Return evenly spaced round numbers around others, at least two, within bounds."""
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    step = _step((high - low) / 3)
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    ticks = [step * number for number in range(first, last + 1)]
    return [tick for tick in ticks if bounds[0] - 1e-9 <= tick <= bounds[1] + 1e-9]


def _decades(numbers: Floats) -> list[float]:
    """Return 1, 2 and 5 times powers of ten around numbers; fewer of them if there are many."""
    first, last = (int(np.floor(np.log10(end))) for end in (numbers.min(), numbers.max()))
    for parts in ((1, 2, 5), (1, 3), (1,)):
        every = [part * 10.0**power for power in range(first, last + 2) for part in parts]
        below = max(tick for tick in every if tick <= numbers.min())
        above = min(tick for tick in every if tick >= numbers.max() and tick > below)
        ticks = [tick for tick in every if below <= tick <= above]
        if len(ticks) <= 6:
            break
    return ticks


def _step(size: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten up to a size."""
    power = 10.0 ** np.floor(np.log10(size))
    return float(max(part * power for part in (1, 2, 5) if part * power <= size * (1 + 1e-9)))


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if points else ""
