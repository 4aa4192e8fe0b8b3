"""Tar archives that are read where they lie, after all of their members were checked."""

from __future__ import annotations

import os
import tarfile
from pathlib import PurePosixPath
from typing import BinaryIO

from lft.errors import UsageError

MOST_MEMBERS = 1_000_000
MOST_BYTES = 8 * 2**30  # of all members together


def members(file: BinaryIO) -> list[tarfile.TarInfo]:
    """Files and folders of an uncompressed tar.

    Raises:
        UsageError: it is no such tar, is truncated, has too many members or too much content, or
            a member is a link, a device, sparse, or named so that it would lie outside.
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
    """The bytes of one member of :func:`members`."""
    file.seek(member.offset_data)
    return file.read(member.size)


def _problem(member: tarfile.TarInfo) -> str | None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        return "would lie outside of the folder it is unpacked to"
    if member.issparse() or not (member.isfile() or member.isdir()):
        return "is neither a plain file nor a folder"
    return None
