"""Write and read the checked array file of an image source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lft.config import Source
from lft.config.base import SHOWN
from lft.errors import UsageError
from lft.storage.tensors import load_tensors, save_tensors


class Split(NamedTuple):
    """Images, uint8 (n, C, H, W), and their labels, int64 (n,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


class Arrays(NamedTuple):
    """The images of a source as read; labels are indices into ``classes``."""

    train: Split
    test: Split
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ImageSet:
    """Checked images of one source.

    Attributes:
        train_images, test_images: uint8 (n, C, H, W).
        train_labels, test_labels: int64 (n,), indices into ``classes``.
        classes: class names.
        label: name in tables and figures.
        stands_in_for: the paper's data set that this one replaces, if any.
        note: remark shown with every result, e.g. how the pixels were obtained.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    label: str
    stands_in_for: str | None
    note: str | None


def in_unit_range(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale pixels 0 … 255 to [0, 1], bit for bit the same on every device.

    The divisor is a tensor because a GPU replaces division by a plain number with multiplication by
    its reciprocal.
    """
    return pixels.to(dtype) / torch.full((1,), 255, dtype=dtype, device=pixels.device)


def save(arrays: Arrays, source: Source, path: Path) -> None:
    """Check arrays against the source's settings and write them atomically.

    Raises:
        UsageError: the images do not have ``source.shape``, a label has no class, a class has no
            images in a split, or the file cannot be written.
    """
    for split in (arrays.train, arrays.test):
        _check(split, arrays.classes, source)
    tensors = {
        "train_images": arrays.train.images,
        "train_labels": arrays.train.labels,
        "test_images": arrays.test.images,
        "test_labels": arrays.test.labels,
    }
    info = {
        "classes": arrays.classes,
        "label": source.label,
        "stands_in_for": source.stands_in_for,
        "note": source.remarks,
        "settings": _computing(source),
    }
    save_tensors(
        path,
        {
            name: torch.from_numpy(np.require(array, requirements=["C", "W"]))
            for name, array in tensors.items()
        },
        info,
    )


def load(path: Path, source: Source | None = None) -> ImageSet:
    """Read an array file and verify its checksum.

    Args:
        path: the array file.
        source: settings that the file must match; keys that the file does not record are ignored.

    Raises:
        UsageError: the file is missing, truncated or altered, does not hold images, or was prepared
            with other settings.
    """
    tensors, info = load_tensors(path)
    made_with = info.pop("settings", {})
    wanted = _computing(source) if source else {}
    for key in made_with.keys() & wanted.keys():
        if made_with[key] != wanted[key]:
            raise UsageError(
                f"{path} was prepared with {key} {made_with[key]!r}, the profile says "
                f"{wanted[key]!r}; delete it and prepare it again"
            )
    try:
        values: dict[str, Any] = {**tensors, **info, "classes": tuple(info["classes"])}
        return ImageSet(**values)
    except (KeyError, TypeError):
        raise UsageError(f"{path} does not hold images; delete it and run again") from None


def _computing(source: Source) -> dict[str, Any]:
    """Settings that determine the images."""
    return source.model_dump(mode="json", exclude=SHOWN)


def _check(split: Split, classes: tuple[str, ...], source: Source) -> None:
    """Check one split.

    Raises:
        UsageError: see :func:`save`.
    """
    name, shape = f"source {source.name!r}", split.images.shape[1:]
    if shape != source.shape:
        raise UsageError(
            f"{name} has images of {_by(shape)} (channels x height x width), but its key 'shape' "
            f"says {_by(source.shape)}; correct it, or set 'resize' or 'convert'"
        )
    if len(split.images) != len(split.labels):
        raise UsageError(f"{name} has {len(split.images)} images but {len(split.labels)} labels")
    counts = np.bincount(split.labels, minlength=len(classes))
    if len(counts) > len(classes):
        raise UsageError(
            f"{name} has the label {split.labels.max()}; labels run from 0 to {len(classes) - 1}"
        )
    if not counts.all():
        raise UsageError(f"{name}: class {classes[counts.argmin()]!r} has no images in one split")


def _by(shape: tuple[Any, ...]) -> str:
    return "x".join(map(str, shape))
