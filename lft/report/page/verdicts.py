"""The table of verdicts, and the version of the judged claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from lft.config import Profile
from lft.report.claims import Verdicts, load_claims
from lft.report.claims.shown import (
    SYMBOLS,
    effect_text,
    failures_text,
    needed_text,
    skewed_text,
)
from lft.report.multiverse import Share, in_short
from lft.report.page.sections import Judged

FEW = 3
"""Largest number of seeds that decides nothing, because after the adjustment only effects that
cannot occur would be significant."""


def hypotheses(
    claims: list[Judged], anchors: set[str], readings: Mapping[str, Share]
) -> Iterator[dict[str, Any]]:
    """Yield each hypothesis with its claims, which rest on the same trainings.

    Args:
        claims: claims with their verdicts.
        anchors: ids of the page.
        readings: claim -> share of the readings of the paper in which it holds; may be empty.
    """
    usual = usual_interval(claims)
    for id, text in load_claims().hypotheses.items():
        rows = [
            claim_row(found, anchors, usual) | {"readings": in_short(readings.get(found.row.claim))}
            for found in claims
            if found.row.hypothesis == id
        ]
        if rows:
            yield {"id": id, "text": text, "claims": rows}


def usual_interval(claims: list[Judged]) -> str:
    """Return the most common kind of interval, which the page names only once."""
    kinds = Counter(found.row.interval for found in claims if found.row.low is not None)
    return kinds.most_common(1)[0][0] if kinds else ""


def claim_row(judged: Judged, anchors: set[str], usual: str = "") -> dict[str, Any]:
    """Return a row of the table.

    Args:
        judged: claim and verdict.
        anchors: ids of the page that may be linked to.
        usual: the kind of interval that the row does not repeat.
    """
    row = judged.row
    other = row.without_failures
    depends = f"without failed runs: {other}" if other and other != row.verdict else ""
    return {
        "id": row.claim,
        "section": judged.section,
        "experiment": judged.experiment,
        "text": row.text,
        "place": row.place,
        "figure": row.figure,
        "linked": row.figure in anchors,
        "change": row.change if row.change != "unregistered" else "",
        "verdict": judged.word,
        "symbol": SYMBOLS.get(judged.word, ""),
        "slug": judged.slug,
        "reasons": [
            text
            for text in (row.reason, row.behind, depends, skewed_text(row), needed_text(row))
            if text
        ],
        "paper": row.paper,
        "ours": row.ours,
        "effect": effect_text(row),
        "interval": row.interval if row.interval != usual else "",
        "p": _p(row.p),
        "g": "–" if row.g is None else f"{row.g:.1f}".replace("-", "−"),
        "improvement": "–" if row.improvement is None else f"{row.improvement:.0%}",
        "seeds": "–" if row.n_for is None else f"{row.n_for}/{row.n_seeds}",
        "failures": [failures_text(row, side) for side in "ab"],
        "minutes": f"{row.seconds / 60:.1f}",
    }


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def registration(verdicts: Verdicts) -> dict[str, Any]:
    """Describe the claims' version, and what changed after the runs."""
    changed = [row.claim for row in verdicts.claims if row.change in ("added", "changed")]
    return {
        "version": verdicts.version,
        "date": verdicts.date,
        "digest": verdicts.digest[:12],
        "registered": verdicts.registered,
        "changed": changed,
        "removed": verdicts.removed,
        "unregistered": any(row.change == "unregistered" for row in verdicts.claims),
        "family": len(verdicts.family),
    }


def few_seeds(profile: Profile) -> str:
    """Return a sentence if the profile has too few seeds to decide anything; otherwise empty."""
    n = len(profile.seeds)
    who = ("One seed decides", "Two seeds decide", "Three seeds decide")
    return "" if n > FEW else f"{who[n - 1]} nothing."


def counts(claims: list[Judged]) -> list[tuple[str, str, int]]:
    """Return symbol, verdict and number of claims, for every possible verdict."""
    found = Counter(found.word for found in claims)
    return [(SYMBOLS[name], name, found[name]) for name in SYMBOLS]


def others(planned: list[Judged]) -> list[tuple[str, int]]:
    """Count the claims and checks without a verdict, by the word that replaces it."""
    return list(Counter(found.word for found in planned if found.word not in SYMBOLS).items())
