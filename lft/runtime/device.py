"""Device and threads of a job; the profile chooses them, and there is no silent fallback."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from lft.config import Profile
from lft.errors import UsageError

log = logging.getLogger(__name__)


@contextmanager
def settings(profile: Profile) -> Iterator[torch.device]:
    """Apply the profile's settings to torch until the block ends, then restore the old ones.

    Within the block, torch uses the profile's number of threads and flushes numbers below 1e-38 to
    zero. On a GPU it does not replace float32 with TF32, and uses deterministic algorithms where
    they exist.

    Yields:
        The device. ``cuda`` is the first GPU that no other job of this user holds; ``cuda:N`` is
        GPU N.

    Raises:
        UsageError: the profile asks for CUDA, but it cannot be used.
    """
    device = find_device(profile.device)
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    tf32 = torch.backends.cudnn.allow_tf32
    torch.set_num_threads(profile.threads)
    try:
        if device.type == "cpu":
            with without_denormals():
                yield device
        else:
            os.environ.setdefault(
                "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
            )  # for deterministic matrix products
            torch.use_deterministic_algorithms(True, warn_only=True)
            # Filling every new tensor costs one kernel launch per tensor.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            torch.backends.cudnn.allow_tf32 = False
            with torch.cuda.device(device), without_denormals():
                yield device
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
        torch.backends.cudnn.allow_tf32 = tf32


@contextmanager
def own_modes(*, gradients: bool = False) -> Iterator[None]:
    """Set torch modes whatever the caller has set: no inference mode, no autocast.

    Args:
        gradients: whether operations are recorded for autograd.
    """
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.set_grad_enabled(gradients))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def without_denormals() -> Iterator[None]:
    """Flush numbers below 1e-38 to zero until the block ends.

    Arithmetic on such numbers takes a hundred times as long, and they do not affect results.
    """
    before = _flushes_denormal()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes_denormal() -> bool:
    return float(torch.tensor([1e-40], dtype=torch.float32, device="cpu") * 1.0) == 0


def find_device(name: str) -> torch.device:
    """Find a device by its name in a profile; ``cuda`` claims a GPU until this process ends.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: the name asks for CUDA, but the machine lacks it or GPU N.
    """
    device = torch.device(name)
    if device.type == "cpu":
        return device
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= found:
        raise UsageError(
            f"device: {name!r} was asked for, but this machine has {found} CUDA devices"
            f"{_why_none() if not found else ''}; set device: cpu in the profile"
        )
    return torch.device("cuda", _own_gpu(found)) if device.index is None else device


def _why_none() -> str:
    """CUDA's error on initialisation, e.g. an old or missing driver, in parentheses; or empty."""
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        return f" ({str(error).strip().splitlines()[0].rstrip('.')})"
    return ""


def memory_problem(error: RuntimeError) -> str | None:
    """Describe in one line that a GPU is out of memory; None if the error is a different one."""
    text = str(error)
    if "out of memory" not in text and "ALLOC_FAILED" not in text:
        return None
    try:
        free, total = torch.cuda.mem_get_info()
    except (AssertionError, RuntimeError):  # there is no memory even for a context
        return "the GPU is out of memory; other processes hold it: wait for them, or take another"
    ours = torch.cuda.memory_reserved()
    return (
        f"the GPU is out of memory: of {total / 1e9:.1f} GB this process holds {ours / 1e9:.1f} "
        f"and others {(total - free - ours) / 1e9:.1f}; lower meta_batch, testing.tasks or "
        "validation.tasks, or take a GPU that is free"
    )


@cache
def _own_gpu(found: int) -> int:
    """Index of this process's GPU, the same at every call; GPU 0 is shared if none is free."""
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
"""Locks of this process; the system releases them when it ends in any way."""


def claim(names: Sequence[str], folder: Path) -> int | None:
    """Hold the first free device until this process ends.

    Args:
        names: devices, by names on which all processes of this machine agree.
        folder: folder of the lock files.

    Returns:
        The index of the device; None if other processes hold all of them.
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
