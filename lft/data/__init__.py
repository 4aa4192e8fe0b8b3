"""Images: three kinds of source, one checked array file."""

from __future__ import annotations

from pathlib import Path

from lft.config import Source
from lft.data import embedded, folder, published
from lft.data.images import ImageSet, load, save
from lft.errors import UsageError

__all__ = ["ImageSet", "load", "prepare"]

READERS = {"embedded": embedded.read, "torchvision": published.read, "folder": folder.read}


def prepare(source: Source, path: Path) -> None:
    """Obtain a source's images, check them and write the array file.

    Raises:
        UsageError: the images cannot be obtained, are damaged, or are not what the source's
            settings say; nothing is left at ``path``.
    """
    try:
        arrays = READERS[source.kind](source)
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from None
    save(arrays, source, path)
