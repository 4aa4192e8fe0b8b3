"""A method with a fine-tuner of its own. This file does not import torch, to stay light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lft.config import Fraction, LearnedTuner
from lft.methods import Method

if TYPE_CHECKING:
    from torch import Generator

    from lft.finetuners.base import FineTuner
    from lft.kernels.build import Kernel
    from lft.types import Params


class ExampleNameSettings(LearnedTuner):
    """Gradient descent with momentum whose step size and momentum are meta-learned."""

    kind: Literal["example-name"] = "example-name"
    momentum: Fraction = 0.5  #: before meta-training

    def initial(self, generator: Generator) -> Params:
        """φ before meta-training."""
        from .tuner import initial

        return initial(self)

    def build(self, weights: Params, kernel: Kernel = "auto") -> FineTuner:
        """The fine-tuner with these weights."""
        from .tuner import ExampleName

        return ExampleName(weights)


METHOD = Method(
    name="example-name",
    label="Example name",
    color="#8C564B",
    learns="finetuner",
    tuner="example-name",
)
