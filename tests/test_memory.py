"""The meter against memory that is held for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from lft import memory
from lft.memory import MemoryMeter


def test_the_peak_counts_what_is_held_only_since_the_meter() -> None:
    before = b"x" * 300_000_000
    del before
    meter = MemoryMeter()
    assert (meter.peak_mb() or 0) < 50
    held = b"x" * 200_000_000
    del held
    # The interpreter's own needs come on top; blocks of this size are given back when freed.
    assert 195 < (meter.peak_mb() or 0) < 250


def test_a_system_that_does_not_tell_has_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "absent")
    assert MemoryMeter().peak_mb() is None
