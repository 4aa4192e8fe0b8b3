"""Files and folders that are replaced as a whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lft.errors import UsageError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends without an error.

    What earlier writers of ``path`` left when they were killed is removed.

    Raises:
        UsageError: the folder cannot be written or the disk is full; nothing half-written stays.
    """
    path = Path(path)
    temporary: Path | None = None
    handle = -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_orphans(path.parent, f".{glob.escape(path.stem)}.????????{path.suffix}")
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent
        )
        temporary = Path(name)
        _claim(handle)
        yield temporary
        with temporary.open("rb+") as file:
            _sync(file.fileno())
        _set_mode(temporary, 0o666)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """A temporary folder beside ``path`` that replaces it when the block ends without an error.

    Where ``path`` is a link, the folder behind it is replaced.

    Raises:
        UsageError: the folder cannot be written or the disk is full; the old one stays.
    """
    path = Path(path)
    try:
        path = path.resolve() if path.is_symlink() else path
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_orphans(path.parent, f".{glob.escape(path.name)}.????????")
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        handle = os.open(temporary, os.O_RDONLY)
        _claim(handle)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        _set_mode(temporary, 0o777)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def _claim(handle: int) -> bool:
    """Lock an open file or folder until it is closed or the process ends, however it ends.

    Returns:
        Whether it is locked now: no other process has it, and the file system has locks.
    """
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def remove_orphans(folder: Path, pattern: str) -> None:
    """Remove temporary files and folders whose process was killed; those being written stay."""
    for orphan in folder.glob(pattern):
        with suppress(OSError):
            handle = os.open(orphan, os.O_RDONLY if orphan.is_dir() else os.O_RDWR)
            try:
                if not _claim(handle):
                    continue
                if orphan.is_dir():
                    shutil.rmtree(orphan)
                else:
                    orphan.unlink()
            finally:
                os.close(handle)


def _sync(handle: int) -> None:
    """Have a file on the disk, on file systems that know how to."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _set_mode(path: Path, mode: int) -> None:
    """Permissions as they are usual, on file systems that have any."""
    with suppress(OSError):
        path.chmod(mode & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
