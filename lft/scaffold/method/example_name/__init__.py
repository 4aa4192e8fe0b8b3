"""A method with its own fine-tuner. This file does not import torch, so that it loads fast."""

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
        """Return φ before meta-training."""
        from .tuner import initial

        return initial(self)

    def build(self, weights: Params, kernel: Kernel = "auto") -> FineTuner:
        """Build the fine-tuner with these weights."""
        from .tuner import ExampleName

        return ExampleName(weights)


METHOD = Method(
    name="example-name",
    label="Example name",
    color="#8C564B",
    learns="finetuner",
    tuner="example-name",
)
