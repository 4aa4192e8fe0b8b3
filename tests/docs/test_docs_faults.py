"""The table of faults names tests that exist."""

from __future__ import annotations

import re

from checkout import ROOT

TESTS = ROOT / "tests"


def test_every_fault_has_a_test_that_exists() -> None:
    rows = (ROOT / "docs/faults.md").read_text().splitlines()
    heads = ("| fault", "| number")
    rows = [row for row in rows if row.startswith("| ") and not row.startswith(heads)]
    assert len(rows) > 20
    for row in rows:
        file = ""
        cited = re.findall(r"`([\w/]+\.py)?(?:::)?(test_\w+)?`", row.rsplit("|", 2)[1])
        assert cited, row
        for path, name in cited:
            file = path or file
            text = (TESTS / file).read_text()
            assert f"def {name}(" in text if name else True, (row, name)
