"""The multiverse's page: one self-contained HTML file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lft.config import load_questions
from lft.methods import get_method
from lft.paths import shipped
from lft.report.claims.model import CellClaim
from lft.report.multiverse.analysis import NEAREST, Reading
from lft.report.multiverse.curves import in_words
from lft.report.multiverse.shares import Share
from lft.report.multiverse.statistics import LEVEL
from lft.report.page.scripts import script
from lft.report.templates import render
from lft.storage.atomic import write_text

Rows = Sequence[tuple[Any, ...]]
"""Rows of decides.csv."""


def write_page(reading: Reading, decides: Rows) -> None:
    """Write multiverse.html.

    Args:
        reading: the finished universes.
        decides: rows of decides.csv.
    """
    claims = {claim.id: claim for name in reading.experiments for claim in reading.explored(name)}
    tested = [row for row in decides if row[1] == "share" and not math.isnan(row[5])]
    page = render(
        "multiverse.html.j2",
        profile=reading.profile,
        done=len(reading.found),
        planned=reading.planned,
        shares=[_share(claims[row.claim], row) for row in reading.shares],
        unexplored=[c.claim for c in reading.claims.claims if c.id not in claims],
        curves=[
            {"id": f"curve-{row.claim}", "alt": in_words(claims[row.claim], row)}
            for row in reading.shares
            if row.judged
        ],
        data=_data(reading, list(claims.values())),
        chance=f"{(1 - LEVEL) * len(tested):.0f}",
        tested=len(tested),
        decided=list(_decided(claims, decides)),
        diverged=list(_diverged(reading, decides)),
        nearest=list(_nearest(reading)),
        forks=list(_forks(reading)),
        script=script(shipped("report_templates", "multiverse.js").read_text(encoding="utf-8")),
    )
    write_text(reading.results / "multiverse.html", page)


def _share(claim: CellClaim, row: Share) -> dict[str, Any]:
    return {
        **row._asdict(),
        "id": claim.id,
        "text": claim.claim,
        "for": _percent(row.for_it),
        "against": _percent(row.against),
        "within": _percent(row.within),
        "interval": f"{_percent(row.low)} to {_percent(row.high)}" if row.judged else "–",
        "seed": _percent(row.of_seed),
    }


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0%}"


def _data(reading: Reading, claims: list[CellClaim]) -> dict[str, Any]:
    """Collect the data that the page's script draws."""
    forks = {name: reading.forks(name) for name in reading.experiments}
    shown = [claim for claim in claims if reading.judged(claim.id)]
    return {
        "claims": [
            {
                "id": claim.id,
                "text": claim.claim,
                "experiment": claim.experiment,
                "margin": _digits(reading.claims.metrics[claim.metric].margin),
                "marks": [
                    {"name": f"{name}: {_shown(reading, claim, effect)}", "effect": _digits(effect)}
                    for name, effect in reading.marks(claim).items()
                ],
            }
            for claim in shown
        ],
        "forks": {
            name: [
                {"name": f.name, "levels": list(f.groups), "weights": list(f.groups.values())}
                for f in of_experiment
            ]
            for name, of_experiment in forks.items()
        },
        "universes": {name: list(_universes(reading, name, shown)) for name in forks},
        "outcomes": {
            claim.id: {
                one.universe: [_digits(one.effect), one.word] for one in reading.judged(claim.id)
            }
            for claim in shown
        },
    }


def _universes(reading: Reading, name: str, claims: list[CellClaim]) -> Iterator[dict[str, Any]]:
    effects: dict[int, dict[str, str]] = {}
    for claim in claims:
        for one in reading.judged(claim.id) if claim.experiment == name else ():
            effects.setdefault(one.universe, {})[claim.id] = _shown(reading, claim, one.effect)
    forks = reading.forks(name)
    for found in reading.of_experiment(name):
        universe = found.universe
        places = [list(f.groups).index(f.group(universe.levels[f.name])) for f in forks]
        yield {"n": universe.number, "levels": places, "shown": effects.get(universe.number, {})}


def _shown(reading: Reading, claim: CellClaim, effect: float) -> str:
    """Format an effect: a difference in points, or a ratio."""
    scale = reading.claims.metrics[claim.metric]
    raw = scale.raw(effect)
    return f"{100 * raw:+.1f} points" if scale.scale == "points" else f"× {raw:.3g}"


def _digits(value: float) -> float:
    """Round to four significant digits, more than the page can show."""
    return float(f"{value:.4g}")


def _decided(claims: dict[str, CellClaim], decides: Rows) -> Iterator[dict[str, Any]]:
    for id, claim in claims.items():
        rows = [row for row in decides if row[2] == id]
        lines = [
            f"{fork} = {level}: {_points(value, low, high)}"
            for _, what, _, fork, level, value, low, high in rows
            if what == "share" and (low > 0 or high < 0)
        ]
        lines += [
            f"Both {fork} and {level}: together {value:+.2g} more than their sum"
            for _, what, _, fork, level, value, *_ in rows
            if what == "interaction"
        ]
        important = [f"{row[3]} {row[5]:.0%}" for row in rows if row[1] == "importance"]
        if important:
            lines.append(f"Importance in a forest that predicts: {', '.join(important[:5])}")
        if lines:
            yield {"text": claim.claim, "lines": lines}


def _points(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.0f} points [{100 * low:+.0f}, {100 * high:+.0f}]"


def _diverged(reading: Reading, decides: Rows) -> Iterator[dict[str, Any]]:
    for name in reading.experiments:
        for method, words in reading.diverged(name).items():
            levels = [
                f"{fork} = {level}: {_points(value, low, high)}"
                for where, what, subject, fork, level, value, low, high in decides
                if (where, what, subject) == (name, "diverged", method) and (low > 0 or high < 0)
            ]
            label = get_method(method).label
            yield {"experiment": name, "method": label, "n": int(np.sum(words)), "of": len(words),
                   "levels": levels}  # fmt: skip


def _nearest(reading: Reading) -> Iterator[dict[str, Any]]:
    for name in reading.experiments:
        far = list(reading.distances(name).items())[:NEAREST]
        if far:
            yield {
                "title": reading.profile.experiment(name).title,
                "readings": [f"{number} ({distance:.2f})" for number, distance in far],
                "shared": [
                    f"{fork} = {level} ({n} of {len(far)}; weight {weight:.0%})"
                    for fork, level, n, weight in reading.shared(name)
                ],
            }


def _forks(reading: Reading) -> Iterator[dict[str, Any]]:
    used = {fork.name for name in reading.experiments for fork in reading.forks(name)}
    for question in load_questions():
        for fork in question.forks:
            if fork.name not in used:
                continue
            levels = [(level.name, level.reason) for level in fork.levels]
            if fork.range is not None:
                ends = f"{fork.range.low:g} to {fork.range.high:g}"
                text = ends + (", uniform in the logarithm" if fork.range.log else "")
                levels = [(text, fork.range.reason)]
            for level, reason in levels:
                yield {
                    "id": question.id, "gap": question.gap, "forbids": question.forbids,
                    "fork": fork.name, "experiments": ", ".join(fork.experiments), "level": level,
                    "weight": _percent(fork.groups.get(level, 1.0)), "reason": reason,
                }  # fmt: skip
