"""From an image file or array to the bytes of the shape that a source asks for."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lft.config import Source
from lft.data.images import Arrays, Split
from lft.errors import UsageError

FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for a number of channels."""
TooLarge = Image.DecompressionBombWarning
WIDE = ("I", "F")
"""How modes of more than eight bits a channel begin."""


@contextmanager
def reading(name: object) -> Iterator[None]:
    """An error of the system names what was read.

    Raises:
        UsageError: in the place of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot read {error.filename or name}: {reason}") from None


def torchvision() -> ModuleType:
    """The package, imported when it is needed.

    Raises:
        UsageError: it is missing, or built for another torch.
    """
    try:
        import torchvision
        import torchvision.transforms.v2
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"torchvision cannot be imported ({' '.join(str(error).split())}); "
            "pip install torch torchvision"
        ) from None
    return torchvision  # type: ignore[no-any-return]


def decode(name: str, content: bytes, source: Source) -> NDArray[np.uint8]:
    """One image file, uint8 of the source's shape.

    Raises:
        UsageError: it is no image, or has another size or mode and the source does not say what to
            do with such; the size is looked at before the pixels.
    """
    try:
        with warnings.catch_warnings():
            # A picture of too many pixels is refused: for its size or, if that may be any, here.
            warnings.simplefilter("error" if source.resize else "ignore", TooLarge)
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                return fit(picture, name, source)
    except UsageError:
        raise
    except Exception:  # Pillow's decoders raise many kinds
        raise UsageError(
            f"{name!r} cannot be decoded as an image ({', '.join(FORMATS)}); get it again or "
            "remove it"
        ) from None


def fit(picture: Image.Image, name: str, source: Source) -> NDArray[np.uint8]:
    """A picture as uint8 of the source's shape, resized and converted as the source says.

    Raises:
        UsageError: it has another size or mode and the source does not say what to do with such.
    """
    channels, height, width = source.shape
    mode = MODES.get(channels)
    wide = picture.mode.startswith(WIDE)
    other_size, other_mode = picture.size != (width, height), picture.mode != mode
    if (
        mode is None
        or wide
        or (other_size and not source.resize)
        or (other_mode and not source.convert)
    ):
        advice = (
            "save it with 8 bits a channel"
            if wide
            else "correct 'shape', or set "
            + " and ".join([*["'resize'"] * other_size, *["'convert'"] * other_mode])
        )
        raise UsageError(
            f"{name!r} has {picture.width}x{picture.height} pixels in mode {picture.mode}, but the "
            f"source's key 'shape' says {width}x{height} with {channels} channels (mode {mode}); "
            f"{advice}"
        )
    if other_mode:
        picture = picture.convert(mode)
    if other_size:
        picture = _resized(picture, height, width, source.resize)
    return np.asarray(picture).reshape(height, width, channels).transpose(2, 0, 1)


def fit_all(arrays: Arrays, source: Source) -> Arrays:
    """Arrays of another shape, image by image as by :func:`fit` if the source asks for that."""
    if not (source.resize or source.convert):
        return arrays
    train, test = (_fit_split(split, source) for split in (arrays.train, arrays.test))
    return Arrays(train, test, arrays.classes)


def _fit_split(split: Split, source: Source) -> Split:
    if split.images.shape[1:] == source.shape:
        return split
    images = np.empty((len(split.images), *source.shape), np.uint8)
    for image, pixels in zip(images, split.images, strict=True):
        image[:] = fit(Image.fromarray(pixels.transpose(1, 2, 0).squeeze()), source.name, source)
    return Split(images, split.labels)


def _resized(picture: Image.Image, height: int, width: int, how: str | None) -> Any:
    """Stretched; or scaled to cover the size and cropped; or to fit in and padded with black."""
    functional = torchvision().transforms.v2.functional
    if how == "stretch":
        return functional.resize(picture, [height, width])
    scales = height / picture.height, width / picture.width
    scale = max(scales) if how == "crop" else min(scales)
    scaled = [max(1, round(side * scale)) for side in (picture.height, picture.width)]
    return functional.center_crop(functional.resize(picture, scaled), [height, width])
