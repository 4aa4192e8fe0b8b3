"""Images: three kinds of source, one checked array file."""

from __future__ import annotations

from pathlib import Path

from lft.config import Source
from lft.data import embedded
from lft.data.images import ImageSet, load, save

__all__ = ["ImageSet", "load", "prepare"]

READERS = {"embedded": embedded.read}


def prepare(source: Source, path: Path) -> None:
    """Obtain a source's images, check them and write the array file.

    Raises:
        UsageError: the images cannot be obtained, are damaged, or are not what the source's
            settings say; nothing is left at ``path``.
    """
    save(READERS[source.kind](source), source, path)
