"""Measure the memory that a part of the program uses."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

_PROCESS = Path("/proc/self")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # options of mallopt in glibc's malloc.h


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed tensors (glibc).

    By default glibc returns each large block to the system, which clears its pages before the next
    tensor gets them. On sine regression with zeroth-order gradients that takes a third of the time.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc takes
        mallopt(_TRIM_THRESHOLD, 2**30)


class MemoryMeter:
    """Measures growth of the process's resident memory from now on, including tensors on the CPU.

    Freed memory is first returned to the system (glibc only), so that reusing it counts as growth.
    """

    def __init__(self) -> None:
        self._before: float | None = None
        gc.collect()
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            (_PROCESS / "clear_refs").write_text("5")  # reset the peak to the present size
            self._before = _resident("VmRSS")
        except OSError:
            pass

    def peak_mb(self) -> float | None:
        """Largest growth so far, in MB; None if the system does not report it (Linux does)."""
        if self._before is None:
            return None
        return max(0.0, round(_resident("VmHWM") - self._before, 1))


def _resident(field: str) -> float:
    """Read a size from /proc/self/status, in MB."""
    lines = (_PROCESS / "status").read_text().splitlines()
    found = next(line for line in lines if line.startswith(f"{field}:"))
    return int(found.split()[1]) * 1024 / 1e6
