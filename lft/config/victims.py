"""Settings of the networks that universal attacks target."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from lft.config.base import Positive, Rate, Settings
from lft.config.sources import Source

LENET_SIDES = (28, 32)
"""Sides, in pixels, of the images that LeNet-5 takes."""
LENET = "lenet5"
"""Name of the victim that lft trains; others bring their weights."""


class VictimSettings(Settings):
    """Victims of the attacks: LeNet-5, which lft trains, or other networks with given weights."""

    #: ``lenet5``, ``torchvision/<name>``, ``module:function`` or ``path:function``; the function
    #: takes the number of classes and returns a ``torch.nn.Module``
    model: str = LENET
    #: safetensors file with the ``state_dict`` of a model other than LeNet-5; ``{source}`` is
    #: replaced with the name of the image source
    weights: str | None = None
    epochs: Positive | None = None  #: epochs of LeNet-5's training
    batch: Positive = 128  #: images per batch of LeNet-5's training
    learning_rate: Rate = 1e-3  #: of Adam for LeNet-5, decayed to 0 along a cosine
    per_seed: bool = False  #: one victim per seed instead of one for all seeds

    @model_validator(mode="after")
    def _trained_or_given(self) -> VictimSettings:
        if self.model == LENET:
            if self.weights is not None:
                raise ValueError("lft trains lenet5; remove 'weights' or choose another 'model'")
            if self.epochs is None:
                raise ValueError("key 'epochs' is missing")
        elif self.weights is None:
            raise ValueError(f"model {self.model!r} needs the key 'weights', a safetensors file")
        elif not (self.model.startswith("torchvision/") or ":" in self.model):
            raise ValueError(f"model {self.model!r} is not like torchvision/resnet18 or my.py:make")
        return self

    @property
    def trained_for(self) -> int:
        """Epochs of LeNet-5's training."""
        assert self.epochs is not None
        return self.epochs

    def weights_of(self, source: str) -> Path:
        """Weights file of a model other than LeNet-5, for an image source."""
        return Path(str(self.weights).replace("{source}", source))

    def check(self, source: Source) -> None:
        """Check that the victim takes a source's images.

        Raises:
            ValueError: LeNet-5 does not take their size; the message begins with the source's key.
        """
        _, height, width = source.shape
        if self.model == LENET and (height != width or height not in LENET_SIDES):
            sizes = " or ".join(f"{side}x{side}" for side in LENET_SIDES)
            raise ValueError(f"shape: images of {height}x{width}; LeNet-5 takes {sizes}")
