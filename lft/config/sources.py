"""Settings of image sources."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from lft.config.base import Positive, Settings
from lft.errors import suggestion

ImageShape = tuple[Positive, Positive, Positive]


class Known(NamedTuple):
    """Image shape and number of classes of a data set that lft obtains by name."""

    shape: tuple[int, int, int]
    classes: int


KNOWN = {
    "embedded": {"mnist5k": Known((1, 28, 28), 10), "photos": Known((3, 32, 32), 10)},
    "torchvision": {
        "MNIST": Known((1, 28, 28), 10),
        "FashionMNIST": Known((1, 28, 28), 10),
        "KMNIST": Known((1, 28, 28), 10),
        "SVHN": Known((3, 32, 32), 10),
        "CIFAR10": Known((3, 32, 32), 10),
        "CIFAR100": Known((3, 32, 32), 100),
    },
}


class Source(Settings):
    """A source of images; every kind is prepared into the same checked array file."""

    kind: Literal["embedded", "torchvision", "folder"]
    name: str  #: mnist5k or photos; a class of torchvision.datasets; free text for a folder
    label: str  #: shown in tables and figures
    shape: ImageShape  #: channels, height, width (pixels)
    #: number of classes if lft does not know it; networks with one output per class need it
    classes: Positive | None = None
    #: folder or tar of a folder source; download folder of a torchvision source
    path: Path | None = None
    #: how to fit pictures of another size: scale and cut (``crop``), scale and fill with black
    #: (``pad``), or ``stretch``; without it they are rejected
    resize: Literal["crop", "pad", "stretch"] | None = None
    #: convert pictures of another colour mode to grey, RGB or RGBA as ``shape`` says (dropping
    #: transparency if need be); otherwise they are rejected
    convert: bool = False
    #: further arguments of the torchvision class, e.g. ``{split: letters}`` for EMNIST
    options: dict[str, bool | int | float | str | list[int]] = Field(default_factory=dict)
    stands_in_for: str | None = None  #: the paper's data set that this one replaces
    note: str | None = None  #: shown with every result, e.g. how the pixels were obtained

    @model_validator(mode="after")
    def _complete(self) -> Source:
        if self.kind == "folder" and self.path is None:
            raise ValueError("kind 'folder' needs the key 'path'")
        known = self._known
        if known is None and self.kind == "embedded":
            hint = suggestion(self.name, KNOWN["embedded"])
            raise ValueError(f"unknown embedded source {self.name!r}{hint}")
        if self.options and (known or self.kind != "torchvision"):
            raise ValueError(f"{self.kind} source {self.name!r} takes no 'options'; remove the key")
        changed = self.resize or self.convert
        for key, value in known._asdict().items() if known else ():
            if key == "shape" and changed:
                continue
            if getattr(self, key) not in (None, value):
                raise ValueError(f"{key} of {self.name} is {value}, not {getattr(self, key)}")
        return self

    @property
    def _known(self) -> Known | None:
        return KNOWN.get(self.kind, {}).get(self.name)

    @property
    def remarks(self) -> str | None:
        """The note, and how pictures of another shape were changed."""
        channels, height, width = self.shape
        done = {"crop": "cropped to", "pad": "padded to", "stretch": "stretched to", None: None}
        colours = {1: "grey", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels} channels")
        changes = [
            *([f"{done[self.resize]} {height}x{width} pixels"] if self.resize else []),
            *([f"converted to {colours}"] if self.convert else []),
        ]
        made = f"pictures of another shape were {' and '.join(changes)}" if changes else None
        return "; ".join(filter(None, (self.note, made))) or None

    @property
    def n_classes(self) -> int | str:
        """Number of classes, or a placeholder text if only the images tell it."""
        known = self.classes or (self._known and self._known.classes)
        return known or f"(classes of {self.path or self.name})"
