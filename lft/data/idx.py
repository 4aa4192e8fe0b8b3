"""MNIST's IDX files: a magic number, the sizes of the dimensions, unsigned bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lft.data.images import Arrays, Split
from lft.data.pictures import reading
from lft.errors import UsageError

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
DIGITS = tuple(map(str, range(10)))
LARGEST = 2**30  # most bytes that a header may announce


def files_in(path: Path) -> list[Path]:
    """Find the four files in a folder or its ``MNIST/raw``; empty if the first is in neither."""
    for folder in (path, path / "MNIST" / "raw"):
        files = [_file(folder, name) for name in NAMES]
        if files[0].is_file():
            return files
    return []


def _file(folder: Path, name: str) -> Path:
    """Find a file by its name, plain or gzipped, also as 7-Zip names or nests it.

    Returns:
        The first existing path; ``<name>.gz`` if there is none.
    """
    spellings = (name, name.replace("-idx", ".idx"))
    stems = [*spellings, *(f"{outer}/{inner}" for outer in spellings for inner in spellings)]
    places = [folder / f"{stem}{suffix}" for stem in stems for suffix in ("", ".gz")]
    return next((place for place in places if place.is_file()), folder / f"{name}.gz")


def read(paths: list[Path], classes: tuple[str, ...] = DIGITS) -> Arrays:
    """Read the four files, plain or gzipped.

    Args:
        paths: in the order of ``NAMES``.
        classes: names of the labels 0, 1, ….

    Raises:
        UsageError: a file is missing, truncated or not in this format.
    """
    train_images, train_labels, test_images, test_labels = paths
    return Arrays(_split(train_images, train_labels), _split(test_images, test_labels), classes)


def _split(images: Path, labels: Path) -> Split:
    with reading(images):
        pixels = _bytes(images, 3)[:, None]
    with reading(labels):
        return Split(pixels, _bytes(labels, 1).astype(np.int64))


def _bytes(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read one file into an array of the shape that its header announces."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions:
                raise ValueError("it ends within its header")
            magic, *shape = np.frombuffer(header, ">u4").tolist()
            size = math.prod(shape)
            if magic != 0x800 + dimensions or size > LARGEST:
                raise ValueError(f"its header is not that of an IDX{dimensions} file of bytes")
            content = file.read(size + 1)
        if len(content) != size:
            sizes = " x ".join(map(str, shape))
            found = f"only {len(content)}" if len(content) < size else "more"
            raise ValueError(f"its header announces {sizes} bytes, but there are {found}")
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise UsageError(f"{path} is damaged ({error}); get it again") from None
    return np.frombuffer(content, np.uint8).reshape(shape)
