"""Images: three kinds of source, one checked array file."""

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

    Raises:
        UsageError: the images cannot be obtained, are damaged, or are not what the source's
            settings say; nothing is left at ``path``.
    """
    if source.path is not None:
        expanded = os.path.expanduser(source.path)  # noqa: PTH111 - as it is for an unknown user
        source = source.model_copy(update={"path": Path(expanded)})
    with pictures.reading(source.path or source.name):
        arrays = pictures.fit_all(READERS[source.kind](source), source)
    save(arrays, source, path)
