"""The networks that universal attacks are made against."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from lft.config.base import Positive, Rate, Settings
from lft.config.sources import Source

LENET_SIDES = (28, 32)
"""Sides of the images, in pixels, that LeNet-5 takes."""
LENET = "lenet5"
"""The victim that is trained here; others bring their weights."""


class VictimSettings(Settings):
    """The networks that are attacked: LeNet-5, trained here, or others with their weights."""

    #: ``lenet5``, ``torchvision/<name>``, or ``module:function`` or ``path:function``, a function
    #: of the number of classes that returns a ``torch.nn.Module``
    model: str = LENET
    #: safetensors file with the ``state_dict`` of a model other than LeNet-5; ``{source}`` stands
    #: for the name of the image source
    weights: str | None = None
    epochs: Positive | None = None  #: of LeNet-5's training
    batch: Positive = 128
    learning_rate: Rate = 1e-3  #: Adam, decayed to 0 along a cosine
    per_seed: bool = False  #: a victim of its own for every seed, or one for all of them

    @model_validator(mode="after")
    def _trained_or_given(self) -> VictimSettings:
        if self.model == LENET:
            if self.weights is not None:
                raise ValueError("weights go with another 'model' than lenet5, which is trained")
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
        """The weights of a model other than LeNet-5."""
        return Path(str(self.weights).replace("{source}", source))

    def check(self, source: Source) -> None:
        """Refuse images that LeNet-5 does not take.

        Raises:
            ValueError: they have another size; the message begins with the source's key.
        """
        _, height, width = source.shape
        if self.model == LENET and (height != width or height not in LENET_SIDES):
            sizes = " or ".join(f"{side}x{side}" for side in LENET_SIDES)
            raise ValueError(f"shape: images of {height}x{width}; LeNet-5 takes {sizes}")
