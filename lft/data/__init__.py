"""Image data: read any of three kinds of source into one checked array file."""

from __future__ import annotations

import os
from pathlib import Path

from lft.config import Source
from lft.data import catalogue, embedded, folder, pictures
from lft.data.images import ImageSet, load, save

__all__ = ["ImageSet", "load", "prepare"]

READERS = {"embedded": embedded.read, "torchvision": catalogue.read, "folder": folder.read}


def prepare(source: Source, path: Path) -> None:
    """Obtain a source's images, check them and write the array file.

    Args:
        source: settings of the image source.
        path: the array file.

    Raises:
        UsageError: the images cannot be obtained, are damaged, or do not match the source's
            settings; nothing is written to ``path``.
    """
    if source.path is not None:
        expanded = os.path.expanduser(source.path)  # noqa: PTH111 - an unknown ~user stays as it is
        source = source.model_copy(update={"path": Path(expanded)})
    with pictures.reading(source.path or source.name):
        arrays = pictures.fit_all(READERS[source.kind](source), source)
    save(arrays, source, path)
