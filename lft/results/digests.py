"""SHA256SUMS: whether files of a result folder were changed after they were written.

It has the format of ``sha256sum``, which can also check it. Folders that older versions wrote have
none: nothing is checked there.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

from lft.errors import UsageError
from lft.storage.atomic import write_text
from lft.storage.csv import read_bytes, stored

SUMS = "SHA256SUMS"
JOINED = ("measurements.csv", "summary.csv", "cells.csv", "theory.csv")
"""What ``lft aggregate`` writes."""
JUDGED = ("claims.json", "claims.csv", "alternatives.csv")
"""What ``lft tables`` writes beside the tables."""
SHOWN = ("report.html", "verdicts.md", "numbers.md")
"""What ``lft page`` writes."""
REPORT = "restore it, or run lft report"
EVALUATION = "restore it, or delete it and run the workflow again"


def record(folder: Path, names: Iterable[str], *, anew: bool = False) -> None:
    """Write the digests of files into the folder's SHA256SUMS.

    Without ``anew`` a folder that has no such file gets none: it would lack the digests of the
    files that these are made from.

    Args:
        folder: where the files are.
        names: of the files; files of other names keep their digests.
        anew: begin the file, or begin it again: forget the digests of all other files.

    Raises:
        UsageError: a file cannot be read, or the folder cannot be written.
    """
    sums = {} if anew else _recorded(folder)
    if sums is None:
        return
    sums |= {name: _digest(folder / name) for name in names}
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()))


def check(folder: Path, names: Iterable[str], advice: str = REPORT) -> None:
    """Refuse files that are not those that were written.

    Args:
        folder: where they are; where it has no SHA256SUMS, nothing is known.
        names: of the files. One that is not there is none that was changed; one that is gzipped
            counts as unpacked.
        advice: what to do about one that was changed.

    Raises:
        UsageError: a file was changed, or is older than those that it is made from.
    """
    sums = _recorded(folder)
    if sums is None:
        return
    for name in names:
        path = stored(folder / name)
        if not path.is_file():
            continue
        if name not in sums:
            raise UsageError(f"{path} is older than the files that it is made from; {advice}")
        if sums[name] != _digest(path):
            raise UsageError(
                f"{path} was changed after it was written: it does not fit {SUMS}; {advice}"
            )


def _recorded(folder: Path) -> dict[str, str] | None:
    """Name -> digest; None where there is no file of them."""
    path = folder / SUMS
    if not path.is_file():
        return None
    lines = read_bytes(path).decode(errors="replace").splitlines()
    pairs = (line.partition("  ") for line in lines)
    return {name: digest for digest, _, name in pairs}


def _digest(path: Path) -> str:
    """SHA-256 of a file's unpacked content, read a piece at a time.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or "it is damaged"
        raise UsageError(f"cannot read {path}: {why}; {REPORT}") from None
