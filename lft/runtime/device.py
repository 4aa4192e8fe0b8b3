"""The device and threads of a job, as the profile says, never chosen silently."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from lft.config import Profile
from lft.errors import UsageError

log = logging.getLogger(__name__)


def use_device(profile: Profile) -> torch.device:
    """Set the number of threads, flush denormal numbers to zero, return the device to compute on.

    ``cuda`` is the first GPU that no other job of this user holds; ``cuda:N`` is GPU N.

    Raises:
        UsageError: the device is unknown, or CUDA is asked for and absent.
    """
    torch.set_num_threads(profile.threads)
    # Arithmetic on numbers below 1e-38 takes a hundred times as long, and they make no difference.
    torch.set_flush_denormal(True)
    try:
        device = torch.device(profile.device)
    except RuntimeError:
        raise UsageError(
            f"device: unknown device {profile.device!r}; use cpu, cuda or cuda:N"
        ) from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise UsageError(
                f"device: {profile.device!r} was asked for, but this machine has {found} CUDA "
                f"devices; set device: cpu in the profile"
            )
        if device.index is None:
            torch.cuda.set_device(_own_gpu(found))
        torch.use_deterministic_algorithms(True, warn_only=True)
    elif device.type != "cpu":
        raise UsageError(f"device: {profile.device!r} is not supported; use cpu, cuda or cuda:N")
    return device


@cache
def _own_gpu(found: int) -> int:
    """The GPU of this process, the same at every call."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(found)]
    folder = Path(tempfile.gettempdir()) / f"lft-gpus-{os.getuid()}"
    index = claim(names[:found], folder)
    if index is None:
        log.warning("all %d GPUs are held by other jobs; sharing the first", found)
        return 0
    log.info("GPU %s", names[index])
    return index


_held: list[FileLock] = []
"""Locks of this process; the system frees them when it ends, however it ends."""


def claim(names: Sequence[str], folder: Path) -> int | None:
    """Hold the first device that no process holds, until this process ends.

    Args:
        names: devices, by names that mean the same to every process of this machine.
        folder: where the lock files are.

    Returns:
        The index of the device, None if all are held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        lock = FileLock(folder / f"{name.replace('/', '-')}.lock", is_singleton=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        _held.append(lock)
        return index
    return None
