"""Torchvision's classification data sets, read by torchvision itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_path

from lft.config import Source
from lft.data import pictures, published
from lft.data.images import Arrays, Split
from lft.errors import UsageError, suggestion

NAMES = (
    "Caltech101", "Caltech256", "CIFAR10", "CIFAR100", "Country211", "DTD", "EMNIST", "EuroSAT",
    "FakeData", "FashionMNIST", "FER2013", "FGVCAircraft", "Flowers102", "Food101", "GTSRB",
    "Imagenette", "ImageNet", "INaturalist", "KMNIST", "LFWPeople", "MNIST", "Omniglot",
    "OxfordIIITPet", "PCAM", "Places365", "QMNIST", "RenderedSST2", "SEMEION", "StanfordCars",
    "STL10", "SUN397", "SVHN", "USPS",
)  # fmt: skip
"""Classes of ``torchvision.datasets`` whose items are an image and its label."""

SPLITS = {
    "FGVCAircraft": ("trainval", "test"),
    "Imagenette": ("train", "val"),
    "ImageNet": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
}
"""Values of ``split`` for training and test images, for classes that do not use (train, test)."""


def read(source: Source) -> Arrays:
    """Read a data set by the name of its class; download files that the folder lacks.

    The data sets of :data:`lft.data.published.DATASETS` bypass torchvision: they come from the
    mirrors listed there and are verified with the checksums listed there. If torchvision does not
    divide a data set, every fifth image of a label becomes a test image. Labels without images are
    left out.

    Args:
        source: ``path`` is the download folder, the user's cache folder by default; ``options`` are
            further arguments of the class.

    Raises:
        UsageError: there is no such data set, its class refuses the options, or its files cannot be
            downloaded or read.
    """
    if source.name not in NAMES:
        raise UsageError(
            f"unknown torchvision source {source.name!r}{suggestion(source.name, NAMES)}"
        )
    if source.name in published.DATASETS:
        return published.read(source)
    parts = [_examples(source, chosen) for chosen in _divisions(source)]
    if len(parts) == 1:
        images, labels, names = parts[0]
        test = _every_fifth(labels)
        splits = Split(images[~test], labels[~test]), Split(images[test], labels[test])
    else:
        splits = Split(*parts[0][:2]), Split(*parts[1][:2])
        names = parts[0][2]
    return _renumbered(*splits, names)


def _class(source: Source) -> Any:
    found = getattr(pictures.torchvision().datasets, source.name, None)
    if found is None:
        raise UsageError(f"this torchvision has no {source.name}; pip install -U torchvision")
    return found


def _parameters(source: Source) -> set[str]:
    """Names of the arguments that the class accepts, including those it passes to its bases."""
    found: set[str] = set()
    for each in inspect.getmro(_class(source)):
        if inspect.isfunction(maker := vars(each).get("__init__")):
            parameters = inspect.signature(maker).parameters.values()
            found |= {parameter.name for parameter in parameters}
            if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters):
                break
    return found


def _divisions(source: Source) -> list[dict[str, Any]]:
    """Arguments that select training and test images; one empty set if the class has none."""
    parameters = _parameters(source)
    if "train" in parameters and "train" not in source.options:
        return [{"train": True}, {"train": False}]
    if "split" in parameters and "split" not in source.options:
        return [{"split": name} for name in SPLITS.get(source.name, ("train", "test"))]
    return [{}]


def _examples(
    source: Source, chosen: dict[str, Any]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Read images (n, C, H, W), labels (n,) and class names of one part of a data set.

    Args:
        source: names the class, the download folder and further arguments.
        chosen: arguments that select the part.

    Raises:
        UsageError: the data set cannot be read, or contains no images.
    """
    folder = Path(source.path or user_cache_path("lft"))
    offered = {"root": str(folder), "download": True}
    parameters = _parameters(source)
    given = {name: value for name, value in offered.items() if name in parameters}
    problem = f"torchvision cannot read {source.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        dataset = _class(source)(**(given | chosen | source.options))
        pairs = [
            (pictures.fit(_picture(image), f"{source.name} {index}", source), int(label))
            for index, (image, label) in enumerate(_items(dataset))
        ]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{problem}: {_line(error)}; correct the source's 'options'") from None
    except ModuleNotFoundError as error:
        raise UsageError(f"{problem} without {error.name}; pip install {error.name}") from None
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise UsageError(
            f"{problem}: {_line(error)}; get its files by hand and put them into {folder}, as "
            "torchvision lays them out"
        ) from None
    attributes = (getattr(dataset, each, None) for each in ("classes", "categories", "_characters"))
    names: list[Any] = next(filter(None, attributes), [])
    if not pairs:
        raise UsageError(f"{problem}: it holds no images")
    images, labels = zip(*pairs, strict=True)
    return np.stack(images), np.array(labels, np.int64), [_name(name) for name in names]


def _items(dataset: Any) -> Iterable[tuple[Any, Any]]:
    return (dataset[index] for index in range(len(dataset)))


def _picture(image: Any) -> Image.Image:
    """Convert an image to Pillow; some data sets return tensors or arrays."""
    if isinstance(image, Image.Image):
        return image
    pixels = torch.as_tensor(image)
    return pictures.torchvision().transforms.v2.functional.to_pil_image(pixels)  # type: ignore[no-any-return]


def _name(name: Any) -> str:
    return name if isinstance(name, str) else ", ".join(map(str, name))


def _every_fifth(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask, bool (n,), of images 4, 9, 14 … of each class, counted from 0."""
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[4::5]] = True
    return test


def _renumbered(train: Split, test: Split, names: list[str]) -> Arrays:
    """Renumber labels so that only classes with images count; these keep their names or numbers."""
    used = np.unique(np.concatenate([train.labels, test.labels]))
    classes = tuple(names[k] if len(names) > used.max() else str(k) for k in used)
    train, test = (Split(s.images, np.searchsorted(used, s.labels)) for s in (train, test))
    return Arrays(train, test, classes)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
