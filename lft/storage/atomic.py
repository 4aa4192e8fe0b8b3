"""Write files and folders atomically: they are replaced completely or not at all."""

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
    """Yield a temporary path in the same folder; replace ``path`` when the block ends.

    If the block raises, ``path`` is left as it was. Temporary files of killed writers are removed.

    Raises:
        UsageError: the folder cannot be written or the disk is full; ``path`` is left as it was.
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
    """Yield a temporary folder in the same folder; replace ``path`` when the block ends.

    If the block raises, ``path`` is left as it was. If ``path`` is a link, its target is replaced.

    Raises:
        UsageError: the folder cannot be written or the disk is full.
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
    """Try to lock an open file or folder until it is closed or the process ends in any way.

    Returns:
        Whether this process holds the lock; False if another does or the file system has no locks.
    """
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def remove_orphans(folder: Path, pattern: str) -> None:
    """Remove temporary files and folders of killed processes; those in use stay.

    Args:
        folder: where to look.
        pattern: glob pattern of the temporary names.
    """
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
    """Flush a file to the disk, if the file system supports that."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _set_mode(path: Path, mode: int) -> None:
    """Set the usual permissions for new files, if the file system has permissions."""
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
