"""The meter against memory that is held for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from lft.runtime import memory
from lft.runtime.memory import MemoryMeter


def test_the_peak_counts_what_is_held_only_since_the_meter() -> None:
    before = b"x" * 300_000_000
    del before
    meter = MemoryMeter()
    assert (meter.peak_mb() or 0) < 50
    held = b"x" * 200_000_000
    del held
    # The interpreter's own needs come on top; blocks of this size are given back when freed.
    assert 195 < (meter.peak_mb() or 0) < 250


def test_memory_that_an_earlier_run_has_left_counts_again() -> None:
    """Blocks too small for pages of their own stay with the C library when they are freed."""

    def blocks(size: int) -> list[bytes]:
        return [b"x" * 100_000 for _ in range(size // 100_000)]

    peaks, pins = [], []
    for _ in range(3):
        meter = MemoryMeter()
        held = blocks(200_000_000)
        pins += blocks(100_000)  # above them on the heap, or they were given back
        del held
        peaks.append(meter.peak_mb() or 0)
    # All of it each time, and less than twice as much.
    assert all(195 < peak < 250 for peak in peaks)


def test_a_system_that_does_not_tell_has_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "absent")
    assert MemoryMeter().peak_mb() is None
