"""The run that results/reference keeps: its report follows from what is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lft.commands.jobs import report
from lft.paths import kept_alternatives

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference run, beside the other kept ones, with its report taken away and built again."""
    made = (
        "*.html",
        "*.md",
        "claims.csv",
        "claims.json",
        "measurements.csv",
        "tables",
        "figures",
        "data",
        "logs",
    )
    results = tmp_path_factory.mktemp("results")
    for kept in kept_alternatives(REFERENCE).values():
        (results / kept.parent.name).mkdir()
        for name in ("alternatives.csv", "report.html"):
            shutil.copy(kept.with_name(name), results / kept.parent.name)
    shutil.copytree(ROOT / "results" / "benchmarks", results / "benchmarks")
    copy = results / "reference"
    shutil.copytree(REFERENCE, copy, ignore=shutil.ignore_patterns(*made))
    report(ROOT / "workflow/config/reference.yaml", copy)
    return copy


def test_the_report_is_rebuilt_byte_for_byte(rebuilt: Path) -> None:
    kept = [
        path.relative_to(REFERENCE)
        for pattern in (
            "*.html",
            "*.md",
            "claims.*",
            "*.csv",
            "SHA256SUMS",
            "tables/*",
            "figures/*.csv",
            "figures/*.svg",
        )
        for path in sorted(REFERENCE.glob(pattern))
    ]
    assert len(kept) > 30
    for path in kept:
        assert (rebuilt / path).read_bytes() == (REFERENCE / path).read_bytes(), path


def test_every_cell_is_measured_or_told_why_not() -> None:
    cells = (REFERENCE / "cells.csv").read_text()
    assert ",missing," not in cells
