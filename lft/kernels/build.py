"""Build and load the native kernels, which replace plain PyTorch for float32 on the CPU.

They are compiled at first use, once per machine and version, into the user's cache folder. If that
folder cannot be used, they go to a private folder in the system's temporary folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import shlex
import shutil
import stat
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from platformdirs import user_cache_path

from lft.errors import UsageError

log = logging.getLogger(__name__)
# Without a GPU this logger warns about missing CUDA on every CPU build.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

Kernel = Literal["auto", "fused", "torch"]
"""Setting ``kernel``: ``torch`` is plain PyTorch. ``fused`` is the native kernels, for float32 on
the CPU; it is an error if they are not available. ``auto`` is the native kernels where they are
available, otherwise plain PyTorch."""

_SOURCES = sorted(Path(__file__).parent.glob("csrc/*.cpp"))
_HEADERS = sorted(Path(__file__).parent.glob("csrc/*.h"))
_FLAGS = (
    "-std=c++20",
    "-O3",
    "-fopenmp",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
)
_SIMD_FLAGS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
}


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels serve this device and dtype; builds them on first use.

    Warns:
        RuntimeWarning: once, with the reason, if they cannot be built.
    """
    return device.type == "cpu" and dtype == torch.float32 and not _problem()


def chosen(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the native kernels serve this device and dtype under a setting.

    Raises:
        UsageError: the setting is ``fused``, but the kernels cannot be built or do not run on the
            device.
    """
    if kernel == "torch":
        return False
    if kernel == "fused" and not available(device, torch.float32):
        why = _problem() if device.type == "cpu" else f"the native kernels do not run on {device}"
        raise UsageError(f"kernel: fused cannot be used: {why}; or set kernel: auto")
    return available(device, dtype)


def used(kernel: Kernel, device: str) -> Kernel:
    """Resolve the setting ``kernel`` for a device to ``fused`` or ``torch``; stored in records."""
    return "fused" if chosen(kernel, torch.device(device), torch.float32) else "torch"


class _UnavailableError(Exception):
    """The library is not available; the message says why and what to do."""


@functools.cache
def _problem() -> str:
    """Load the library into the process; build it first if necessary.

    Returns:
        Why it is not available and what to do; empty if it was loaded.

    Warns:
        RuntimeWarning: the same text, if it is not available.
    """
    try:
        _load()
    except _UnavailableError as error:
        problem = str(error)
    else:
        return ""
    slower = "plain PyTorch is used, with the same results, several times slower"
    warnings.warn(f"{problem}; until then {slower}", RuntimeWarning, stacklevel=3)
    return problem


def _load() -> None:
    """Load the library from the first usable folder.

    Raises:
        _UnavailableError: no folder is usable, or the compiler failed, now or in an earlier
            process.
    """
    reasons = []
    for place in (user_cache_path("lft"), _temporary_folder()):
        try:
            torch.ops.load_library(_library(place))
            return
        except OSError as error:
            cause = error.__cause__ or error  # torch's error is less specific
            reasons.append(f"{place} ({getattr(cause, 'strerror', None) or cause})")
    raise _UnavailableError(
        f"the native kernels cannot be kept in {' or '.join(reasons)}: set the variable "
        "XDG_CACHE_HOME to a folder where you may write and run programs"
    )


def _temporary_folder() -> Path:
    """Path of the temporary folder that all processes of this user share."""
    return Path(tempfile.gettempdir(), f"lft-{os.getuid()}")


def _library(folder: Path) -> Path:
    """Return the library's path in a folder; build the library if it is not there yet.

    Raises:
        OSError: the folder cannot be used.
        _UnavailableError: the compiler failed.
    """
    if not folder.is_absolute():
        raise OSError(errno.ENOENT, "this user has no home folder")
    flags = (*_FLAGS, *_SIMD_FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()))
    sources = [source.read_text() for source in (*_SOURCES, *_HEADERS)]
    key = _digest(*sources, torch.__version__, sysconfig.get_platform(), *flags)
    library = folder / f"kernels-{key}.so"
    temporary = folder == _temporary_folder()
    if temporary:
        _make_private(folder)
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            raise OSError(errno.EPERM, "programs may not run from there")
        with _lock(folder / f"kernels-{key}.lock", required=not temporary):
            if not library.exists():
                _build(library, flags, folder / f"kernels-{key}-{_compiler()}.failed")
    return library


def _make_private(folder: Path) -> None:
    """Make a folder that only this user can access.

    Raises:
        OSError: the path is a link, belongs to someone else, or is open to others.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise OSError(errno.EPERM, "it is not a folder of this user alone")


@contextlib.contextmanager
def _lock(path: Path, *, required: bool) -> Iterator[None]:
    """Hold a lock so that only one of several processes builds; it ends when its holder exits.

    Raises:
        OSError: a lock is required, but the file system has none.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            if required:
                raise
        yield


def _build(library: Path, flags: tuple[str, ...], failed: Path) -> None:
    """Compile in a temporary folder, then rename, so that a killed build leaves no library.

    Args:
        library: path of the result.
        flags: of the compiler.
        failed: file that records a failed build, so that it is not repeated.

    Raises:
        OSError: the disk is full or read-only.
        _UnavailableError: the compiler failed, now or in an earlier process.
    """
    if failed.exists():
        raise _UnavailableError(failed.read_text())
    log.info("compiling the native kernels, once on this machine for this version")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="build-", dir=library.parent) as folder:
        try:
            _compile(Path(folder), flags)
        except RuntimeError as error:
            for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                if os.strerror(code) in str(error):
                    raise OSError(code, os.strerror(code)) from error
            problem = (
                f"the native kernels could not be built ({_reason(error)}). They need a C++20 "
                "compiler: install g++ 11 or newer (Debian, Ubuntu: apt install g++), or name one "
                f"in the variable CXX; to try again with the same one, delete {failed}"
            )
            failed.write_text(problem)
            raise _UnavailableError(problem) from error
        (Path(folder) / "kernels.so").rename(library)
    log.info("compiled in %.0f s: %s", time.perf_counter() - began, library)


def _compile(folder: Path, flags: tuple[str, ...]) -> None:
    import ninja
    from torch.utils import cpp_extension

    path = os.pathsep.join([os.environ.get("PATH", os.defpath), ninja.BIN_DIR])
    changed = {"PATH": path, "LC_ALL": "C"}  # English messages, which _build and _reason parse
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        cpp_extension.load(
            "kernels",
            [str(source) for source in _SOURCES],
            extra_cflags=list(flags),
            extra_ldflags=["-fopenmp"],
            build_directory=str(folder),
            is_python_module=False,
        )
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _compiler() -> str:
    """Fingerprint of the compiler; after a failure, another or a newer compiler is tried again."""
    parts = [os.environ.get("CXX", "c++")]
    for word in shlex.split(parts[0]):
        if found := shutil.which(word):
            state = Path(found).stat()
            parts += [found, str(state.st_mtime_ns), str(state.st_size)]
    return _digest(*parts)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _reason(error: Exception) -> str:
    """The most informative line of a compiler's output."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    telling = (line for line in lines if "error:" in line or "not found" in line)
    return next(telling, lines[-1]).strip()
