"""Images that the user already has: IDX files, or one image file per example."""

from __future__ import annotations

import io
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lft.config import Source
from lft.data import archive, idx
from lft.data.images import Arrays, Split
from lft.errors import UsageError

SPLITS = ("train", "test")
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode for a number of channels


class Example(NamedTuple):
    """One image file, not read yet; ``name`` is for messages."""

    name: str
    read: Callable[[], bytes]


Entry = tuple[PurePosixPath, Example | None]
"""What lies at a path below the source's; None for a folder."""

Tree = dict[str, dict[str, list[Example]]]
"""Split -> class -> examples."""


def read(source: Source) -> Arrays:
    """Read MNIST's IDX files, or images below ``train/<class>/`` and ``test/<class>/``.

    Args:
        source: its ``path`` is a folder with the four IDX files (or with them in ``MNIST/raw``),
            a folder with the image folders or with ``train.tar`` and ``test.tar``, or one
            uncompressed tar.

    Raises:
        UsageError: nothing of that kind is there, an archive is not safe, a class lacks images,
            or a file is damaged or has another size than ``source.shape``.
    """
    path = source.path
    assert path is not None  # the settings of this kind require it
    if not path.exists():
        raise UsageError(f"source {source.name!r}: there is no {path}; correct its key 'path'")
    for folder in (path, path / "MNIST" / "raw"):
        if _idx_file(folder, idx.NAMES[0]).exists():
            return idx.read([_idx_file(folder, name) for name in idx.NAMES])
    tars = [path] if path.is_file() else [path / f"{split}.tar" for split in SPLITS]
    with ExitStack() as opened:
        if tars[0].exists():
            entries = _in_tars([opened.enter_context(tar.open("rb")) for tar in tars])
        else:
            entries = _in_folder(path)
        return _decode(_tree(entries), source)


def _idx_file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.exists() else folder / f"{name}.gz"


def _in_folder(path: Path) -> Iterator[Entry]:
    for split in SPLITS:
        for folder in path.glob(f"{split}/*/"):
            yield PurePosixPath(split, folder.name), None
            for file in folder.iterdir():
                yield (
                    PurePosixPath(split, folder.name, file.name),
                    Example(str(file), file.read_bytes),
                )


def _in_tars(tars: Iterable[BinaryIO]) -> Iterator[Entry]:
    """Members of open tars; nothing is unpacked, they are read where they lie."""
    for tar in tars:
        for member in archive.members(tar):
            reader = partial(archive.content, tar, member)
            example = Example(f"{tar.name}: {member.name}", reader)
            yield PurePosixPath(member.name), example if member.isfile() else None


def _tree(entries: Iterable[Entry]) -> Tree:
    """Sort entries by split and class; what fits the layout nowhere, or is hidden, is skipped."""
    tree: Tree = {split: defaultdict(list) for split in SPLITS}
    for path, example in entries:
        split, *names = path.parts or ("",)
        if split not in SPLITS or any(name.startswith(".") for name in names):
            continue
        if example is None and len(names) == 1:
            tree[split][names[0]] += []
        elif example is not None and len(names) == 2:
            tree[split][names[0]].append(example)
    return tree


def _decode(tree: Tree, source: Source) -> Arrays:
    for split in SPLITS:
        if not tree[split]:
            raise UsageError(
                f"{source.path} has no {split}/<class>/<image>, and no IDX files like MNIST's"
            )
    classes = tuple(sorted(tree["train"].keys() | tree["test"].keys()))
    for split in SPLITS:
        for name in classes:
            if not tree[split].get(name):
                raise UsageError(f"{source.path}: class {name!r} has no images below {split}/")
    train, test = (_split(tree[split], classes, source.shape) for split in SPLITS)
    return Arrays(train, test, classes)


def _split(
    by_class: dict[str, list[Example]], classes: tuple[str, ...], shape: tuple[int, int, int]
) -> Split:
    examples = [
        (label, example)
        for label, name in enumerate(classes)
        for example in sorted(by_class[name], key=attrgetter("name"))
    ]
    images = np.empty((len(examples), *shape), np.uint8)
    with warnings.catch_warnings():
        # a picture with too many pixels is refused for its size, before it is decoded
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for image, (_, example) in zip(images, examples, strict=True):
            image[:] = _pixels(example, shape)
    return Split(images, np.array([label for label, _ in examples]))


def _pixels(example: Example, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decode one image, uint8 ``shape``; its size is looked at before its pixels."""
    channels, height, width = shape
    content = example.read()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            size, mode = picture.size, picture.mode
            if (size, mode) == ((width, height), MODES.get(channels)):
                return np.asarray(picture).reshape(height, width, channels).transpose(2, 0, 1)
    except Exception:  # Pillow's decoders raise many kinds
        raise UsageError(
            f"{example.name!r} cannot be decoded as an image ({', '.join(FORMATS)})"
        ) from None
    raise UsageError(
        f"{example.name!r} has {size[0]}x{size[1]} pixels in mode {mode}, but the source's key "
        f"'shape' says {width}x{height} with {channels} channels (mode {MODES.get(channels)})"
    )
