"""Fine-tuners that are meta-learned: the coordinate-wise LSTM, and those of plug-ins."""

from __future__ import annotations

from typing import Protocol

from torch import Generator

from lft.config import LSTMSettings
from lft.finetuners.base import FineTuner
from lft.finetuners.lstm import CoordinateLSTM
from lft.methods import Method
from lft.plugins import load_object
from lft.types import Params


class LearnedTuner(FineTuner, Protocol):
    """A fine-tuner whose update rule has weights φ; it is differentiable in them."""

    def __init__(self, weights: Params, settings: LSTMSettings) -> None: ...

    @staticmethod
    def initial(settings: LSTMSettings, generator: Generator) -> Params:
        """φ before meta-training, without task axis."""


def learned_tuner(method: Method) -> type[LearnedTuner]:
    """The class of a method's learned fine-tuner.

    Raises:
        UsageError: it is a plug-in's and cannot be imported.
    """
    if method.tuner == "lstm":
        return CoordinateLSTM
    found: type[LearnedTuner] = load_object(method.tuner)
    return found
