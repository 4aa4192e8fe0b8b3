"""Decode image files and fit them to the shape that a source asks for."""

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
"""Prefixes of Pillow's modes with more than eight bits per channel."""


@contextmanager
def reading(name: object) -> Iterator[None]:
    """Turn an ``OSError`` in the block into a message that names the file.

    Args:
        name: named if the error has no file name.

    Raises:
        UsageError: the block raised an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot read {error.filename or name}: {reason}") from None


def torchvision() -> ModuleType:
    """Import torchvision on first use.

    Raises:
        UsageError: it is missing, or built for another version of torch.
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
    """Decode one image file to uint8 of the source's shape.

    The size is checked before any pixel is decoded.

    Args:
        name: names the file in messages.
        content: the bytes of the file.
        source: gives the shape, ``resize`` and ``convert``.

    Raises:
        UsageError: the file is not an image, or its size or mode differs and the source does not
            ask to resize or convert it.
    """
    try:
        with warnings.catch_warnings():
            # Refuse decompression bombs: here if any size is allowed, else `fit` checks the size.
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
    """Resize and convert a picture as the source says, to uint8 of the source's shape.

    Raises:
        UsageError: its size or mode differs and the source does not ask to resize or convert it.
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
    """Apply :func:`fit` to every image of another shape if the source resizes or converts."""
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
    """Resize a picture to height x width pixels.

    Args:
        picture: of any size.
        height: in pixels.
        width: in pixels.
        how: ``stretch``; ``crop`` to scale it to cover the size and cut off the rest; otherwise
            scale it to fit inside and pad with black.
    """
    functional = torchvision().transforms.v2.functional
    if how == "stretch":
        return functional.resize(picture, [height, width])
    scales = height / picture.height, width / picture.width
    scale = max(scales) if how == "crop" else min(scales)
    scaled = [max(1, round(side * scale)) for side in (picture.height, picture.width)]
    return functional.center_crop(functional.resize(picture, scaled), [height, width])
