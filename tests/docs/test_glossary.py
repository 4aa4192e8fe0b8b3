"""The glossary names files that exist, every verdict, and nothing twice."""

from __future__ import annotations

import re
from typing import get_args

from checkout import ROOT

from lft.report.claims.verdict import Word

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/glossary.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| term")
]


def test_files_are_where_it_says() -> None:
    for term, _, where in ROWS:
        assert where or term.startswith("**"), term
        for name in re.findall(r"`([^`]*/[^`]*)`", where):
            assert (ROOT / name).exists(), (term, name)


def test_classes_are_defined_where_it_says() -> None:
    named = 0
    for term, _, where in ROWS:
        file = re.search(r"`(lft/\S+\.py)`", where)
        for name in re.findall(r"`([A-Z]\w+)`", term):
            assert file, term
            named += 1
            assert f"class {name}" in (ROOT / file[1]).read_text(encoding="utf-8"), term
    assert named > 10


def test_verdicts_are_those_of_the_code() -> None:
    assert {term.strip("*") for term, *_ in ROWS if term.startswith("**")} == set(get_args(Word))


def test_no_term_has_two_meanings() -> None:
    terms = [term for cell, *_ in ROWS for term in cell.split(", ")]
    assert len(terms) == len(set(terms)) > 60
