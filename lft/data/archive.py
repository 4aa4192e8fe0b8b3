"""Read tar archives without unpacking them, after checking every member."""

from __future__ import annotations

import os
import tarfile
from pathlib import PurePosixPath
from typing import BinaryIO

from lft.errors import UsageError

MOST_MEMBERS = 1_000_000
MOST_BYTES = 8 * 2**30  # total size of all members


def members(file: BinaryIO) -> list[tarfile.TarInfo]:
    """List the files and folders of an uncompressed tar.

    Raises:
        UsageError: the file is truncated, not an uncompressed tar, or too large, or a member is a
            link, a device or sparse, or its name points outside the archive's folder.
    """
    found: list[tarfile.TarInfo] = []
    total = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if problem := _problem(member):
                    raise UsageError(
                        f"{file.name} is refused: member {member.name[:100]!r} {problem}"
                    )
                total += member.size
                if len(found) == MOST_MEMBERS or total > MOST_BYTES:
                    raise UsageError(f"{file.name} is refused: it is too large")
                found.append(member)
            if file.seek(0, os.SEEK_END) <= tar.offset:
                raise tarfile.ReadError("no block of zeros marks the end")
    except (tarfile.TarError, ValueError, OverflowError, RecursionError):
        raise UsageError(f"{file.name} is truncated or not an uncompressed tar") from None
    return found


def content(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """Read one of the members that :func:`members` returned."""
    file.seek(member.offset_data)
    return file.read(member.size)


def _problem(member: tarfile.TarInfo) -> str | None:
    """Why a member is unsafe, as the end of a message; None if it is safe."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        return "would lie outside the folder it is unpacked to"
    if member.issparse() or not (member.isfile() or member.isdir()):
        return "is neither a plain file nor a folder"
    return None
