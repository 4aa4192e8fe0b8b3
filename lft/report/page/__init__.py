"""The report page: one self-contained HTML file, rendered from files that a run wrote.

Each part of the page has a module; this one puts them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lft.config import Profile
from lft.report.claims import load_claims, read_verdicts
from lft.report.claims.shown import skewness_note
from lft.report.interactive import curves, library, specification
from lft.report.multiverse import shares
from lft.report.page.cards import Card, Deck
from lft.report.page.choices import differences, open_questions
from lft.report.page.drawings import figures
from lft.report.page.overview import forest, legend
from lft.report.page.printed import compared, mixed
from lft.report.page.provenance import manifests, problems, provenance, run_row, times, victims
from lft.report.page.scripts import START_CURVES, filters, script
from lft.report.page.sections import Judged, judged
from lft.report.page.speed import speed
from lft.report.page.theory import bounds, rates
from lft.report.page.training import trainings
from lft.report.page.verdicts import (
    claim_row,
    counts,
    few_seeds,
    hypotheses,
    others,
    registration,
    usual_interval,
)
from lft.report.style import Style
from lft.report.tables import build_tables, summary_tables
from lft.report.templates import render
from lft.results.digests import SHOWN, record
from lft.results.schema import CELL_COLUMNS, SUMMARY_COLUMNS, THEORY_COLUMNS
from lft.storage.atomic import write_text
from lft.storage.csv import read_rows

PAPER_FIGURES = {
    "figure-2": "Figure 2",
    "figure-a1": "Figure A1",
    "figure-3": "Figure 3",
    "figure-4": "Figure 4",
    "figure-gap": "the gradient gap",
    "figure-vanishing": "the meta-gradients' norms",
}
"""Figures that the page names if they were not drawn."""

CONTENTS = (
    ("overview", "Verdicts"),
    ("claims", "Claims"),
    ("verdicts", "Table"),
    ("agreement", "Numbers"),
    ("tables", "Tables"),
    ("figures", "Figures"),
    ("theory", "Theory"),
    ("interactive", "Curves"),
    ("training", "Training"),
    ("speed", "Speed"),
    ("open", "Left open"),
    ("differences", "Differences"),
    ("provenance", "Provenance"),
)
"""Sections of the page, with their links."""


def write_page(profile: Profile, results: Path) -> None:
    """Write report.html and, for a README, verdicts.md and numbers.md.

    verdicts.md has the verdict on every claim, numbers.md the outcome of every method. All are
    made from claims.json, measurements.csv, summary.csv, cells.csv, theory.csv and figures/.

    Args:
        profile: settings.
        results: the profile's result folder.

    Raises:
        UsageError: one of these files is missing or damaged.
    """
    shown = context(profile, results)
    write_text(results / "report.html", render("report.html.j2", **shown))
    for name in ("verdicts.md", "numbers.md"):
        write_text(results / name, render(f"{name}.j2", **shown))
    record(results, SHOWN)


def context(profile: Profile, results: Path) -> dict[str, Any]:
    """Collect all values that the templates show."""
    style = Style(profile)
    verdicts = read_verdicts(results)
    readings = shares(results)
    cells = read_rows(results / "cells.csv", CELL_COLUMNS)
    summary = read_rows(results / "summary.csv", SUMMARY_COLUMNS)
    theory = read_rows(results / "theory.csv", THEORY_COLUMNS)
    tables = build_tables(profile, results)
    drawn = list(figures(results))
    lines = list(curves(summary, style))
    anchors = {table.id for table in tables} | {figure["id"] for figure in drawn} | {"theory"}
    planned = judged([row for row in verdicts.claims if row.status != "not in this profile"])
    claims = [found for found in planned if found.row.kind != "check"]
    timed = list(speed(results))
    scripts = [filters(), *([library(), START_CURVES] if lines else [])]
    made = list(manifests(profile, results))
    return {
        "profile": profile,
        "contents": [entry for entry in CONTENTS if entry[0] != "speed" or timed],
        "stand_ins": [s for s in profile.sources.values() if s.stands_in_for],
        "sources": profile.sources,
        "few_seeds": few_seeds(profile),
        "hypotheses": list(hypotheses(claims, anchors, readings)),
        "readings": bool(readings),
        "interval": usual_interval(claims),
        "skewness": skewness_note([found.row for found in claims]),
        "checks": [claim_row(found, anchors) for found in planned if found.row.kind == "check"],
        "untested": len(verdicts.claims) - len(planned),
        "forest": forest(planned, {id: row.for_it for id, row in readings.items() if row.judged}),
        "legend": legend(),
        "counts": counts(claims),
        "others": others(planned),
        "sections": list(dict.fromkeys(found.section for found in planned)),
        "experiments": list(dict.fromkeys(found.experiment for found in planned)),
        "decks": list(_decks(planned, Deck(profile, results, anchors))),
        "registration": registration(verdicts),
        "agreement": list(compared(profile, results)),
        "unexplained": list(mixed()),
        "tables": tables,
        "summaries": summary_tables(profile, results),
        "figures": drawn,
        "undrawn": [name for id, name in PAPER_FIGURES.items() if id not in anchors],
        "theory": bounds(theory),
        "rates": rates(theory),
        "curves": specification(lines) if lines else None,
        "scripts": [script(text) for text in scripts],
        "trainings": list(trainings(profile, results)),
        "speed": timed,
        "victims": list(victims(profile, results)),
        "problems": problems(cells),
        "open_questions": list(open_questions(profile, results)),
        "differences": differences(profile),
        "times": list(times(profile, made)),
        "runs": [run_row(profile, manifest) for manifest in made],
        "provenance": provenance(made),
        "settings": yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False),
    }


def _decks(planned: list[Judged], deck: Deck) -> Iterator[tuple[str, list[Card]]]:
    """Yield each hypothesis with the cards of its claims."""
    for id, text in load_claims().hypotheses.items():
        cards = [deck.card(found) for found in planned if found.row.hypothesis == id]
        if cards:
            yield text, cards
