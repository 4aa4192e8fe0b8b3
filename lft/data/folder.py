"""The user's own images: IDX files, or one image file per example."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

from lft.config import Source
from lft.data import archive, idx, pictures
from lft.data.images import Arrays, Split
from lft.errors import UsageError

SPLITS = ("train", "test")


class Example(NamedTuple):
    """One image file, read on demand; messages call it ``name``."""

    name: str
    read: Callable[[], bytes]


Entry = tuple[PurePosixPath, Example | None]
"""A path relative to the source's, and the example there; None for a folder."""

Tree = dict[str, dict[str, list[Entry]]]
"""Split -> class -> examples."""


def read(source: Source) -> Arrays:
    """Read MNIST's IDX files, or images below ``train/<class>/`` and ``test/<class>/``.

    Args:
        source: ``path`` is a folder with the four IDX files (possibly in ``MNIST/raw``), with the
            image folders, or with ``train.tar`` and ``test.tar``; or it is one uncompressed tar.

    Raises:
        UsageError: the path contains none of these, an archive is unsafe, a class lacks images, or
            an image is damaged or does not match ``source.shape``.
    """
    path = source.path
    assert path is not None  # the settings of this kind require it
    if not path.exists():
        raise UsageError(f"source {source.name!r}: there is no {path}; correct its key 'path'")
    if files := idx.files_in(path):
        return idx.read(files)
    tars = [path] if path.is_file() else [path / f"{split}.tar" for split in SPLITS]
    with ExitStack() as opened:
        if tars[0].exists():
            entries = _in_tars([opened.enter_context(tar.open("rb")) for tar in tars])
        else:
            entries = _in_folder(path)
        return _decode(_tree(entries), source)


def _in_folder(path: Path) -> Iterator[Entry]:
    for split in SPLITS:
        if not (path / split).is_dir():
            continue
        for folder, names, files in os.walk(path / split, onerror=_fail, followlinks=True):
            here = PurePosixPath(Path(folder).relative_to(path).as_posix())
            for name in names:
                _refuse_loop(Path(folder, name))
                yield here / name, None
            for name in files:
                file = Path(folder, name)
                yield here / name, Example(str(file), file.read_bytes)


def _fail(error: OSError) -> None:
    raise error


def _refuse_loop(folder: Path) -> None:
    if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{folder} is a link to a folder that it lies in; remove it")


def _in_tars(tars: Iterable[BinaryIO]) -> Iterator[Entry]:
    """Entries of open tars; members are read in place, without unpacking."""
    for tar in tars:
        for member in archive.members(tar):
            reader = partial(archive.content, tar, member)
            example = Example(f"{tar.name}: {member.name}", reader)
            yield PurePosixPath(member.name), example if member.isfile() else None


def _tree(entries: Iterable[Entry]) -> Tree:
    """Sort entries by split and class; as in ``ImageFolder``, subfolders belong to their class.

    Hidden entries, and entries that do not fit the layout, are skipped.
    """
    tree: Tree = {split: defaultdict(list) for split in SPLITS}
    for path, example in entries:
        split, *names = path.parts or ("",)
        if split not in SPLITS or any(name.startswith(".") for name in names):
            continue
        if example is None and names:
            tree[split][names[0]] += []
        elif example is not None and len(names) > 1:
            tree[split][names[0]].append((path, example))
    return tree


def _decode(tree: Tree, source: Source) -> Arrays:
    for split in SPLITS:
        if not tree[split]:
            raise UsageError(
                f"{source.path} has no {split}/<class>/<image>, and no IDX files like MNIST's"
                f"{_packed(source.path, split)}"
            )
    classes = tuple(sorted(tree["train"].keys() | tree["test"].keys()))
    for split in SPLITS:
        for name in classes:
            if not tree[split].get(name):
                raise UsageError(f"{source.path}: class {name!r} has no images below {split}/")
    train, test = (_split(tree[split], classes, source) for split in SPLITS)
    return Arrays(train, test, classes)


def _packed(path: Path | None, split: str) -> str:
    """Advice on an archive that cannot be read, as the end of a message; empty if there is none."""
    found = sorted(path.glob(f"{split}.*")) if path and path.is_dir() else []
    return f"; unpack {found[0].name}, or make an uncompressed tar of it" if found else ""


def _split(by_class: dict[str, list[Entry]], classes: tuple[str, ...], source: Source) -> Split:
    examples = [
        (label, example)
        for label, name in enumerate(classes)
        for _, example in sorted(by_class[name], key=_place)
        if example is not None
    ]
    images = np.empty((len(examples), *source.shape), np.uint8)
    for image, (_, example) in zip(images, examples, strict=True):
        with pictures.reading(example.name):
            content = example.read()
        image[:] = pictures.decode(example.name, content, source)
    return Split(images, np.array([label for label, _ in examples]))


def _place(entry: Entry) -> tuple[str, str]:
    """Sort key that gives the order of ``ImageFolder``: folder by folder."""
    return str(entry[0].parent), entry[0].name
