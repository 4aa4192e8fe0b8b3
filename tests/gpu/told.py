"""A plugin of pytest: each test's outcome as a line of JSON, written as it ends.

Of a test that fails, where and why, and what it had recorded (``record_property``).
"""

from __future__ import annotations

import json

import pytest

LONGEST = 600
"""Characters of a reason."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" and report.passed:
        return
    row = {"test": report.nodeid.split("::")[-1], "outcome": report.outcome}
    row |= {"seconds": round(report.duration, 2)} | dict(report.user_properties)
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        where = f"{crash.path.split('/')[-1]}:{crash.lineno}: {crash.message}" if crash else ""
        row["reason"] = (where or str(report.longrepr))[:LONGEST]
    print(f"\n{json.dumps(row)}", flush=True)
