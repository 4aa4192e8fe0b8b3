"""Fine-tuners: the settings of each, and how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from lft.config.base import Rate, Settings
from lft.config.kinds import Kinds

if TYPE_CHECKING:
    from torch import Generator

    from lft.finetuners.base import FineTuner
    from lft.kernels.build import Kernel
    from lft.types import Params


class TunerSettings(Settings):
    """Base of the settings of a fine-tuner, whose ``kind`` names it in profiles and in the method
    table. Subclass :class:`LearnedTuner` or :class:`HandDesignedTuner`; do not import torch there.
    """

    learned: ClassVar[bool]

    kind: str


class LearnedTuner(TunerSettings):
    """Base of the settings of fine-tuners whose update rule has weights φ."""

    learned = True

    def initial(self, generator: Generator) -> Params:
        """φ before meta-training, without task axis."""
        raise NotImplementedError

    def build(self, weights: Params, kernel: Kernel = "auto") -> FineTuner:
        """The fine-tuner with these weights, differentiable in them.

        Args:
            weights: φ, as :meth:`initial` names and shapes it.
            kernel: native kernels or PyTorch, where there is a choice.
        """
        raise NotImplementedError


class HandDesignedTuner(TunerSettings):
    """Base of the settings of fine-tuners that have a step size and nothing to learn."""

    learned = False

    def build(self, step_size: float) -> FineTuner:
        """The fine-tuner with this step size."""
        raise NotImplementedError


FINETUNERS = Kinds("fine-tuner", TunerSettings, default="lstm")
"""Settings of fine-tuners by kind; plug-ins add theirs."""

Tuner = Annotated[SerializeAsAny[TunerSettings], FINETUNERS]

register_finetuner = FINETUNERS.register


@register_finetuner
class LSTMSettings(LearnedTuner):
    """The coordinate-wise LSTM fine-tuner m_phi (eq. 3)."""

    kind: Literal["lstm"] = "lstm"
    layers: Annotated[int, Field(ge=1, le=2)] = 1
    #: cells per layer
    hidden: Annotated[int, Field(ge=1, le=1024, strict=True)] = 10
    #: log-magnitude range (Andrychowicz et al.)
    preprocess_p: Annotated[float, Field(gt=0, le=80)] = 10.0
    output_scale: Rate = 0.1  #: multiplies the output, in units of the optimizee

    def initial(self, generator: Generator) -> Params:
        from lft.finetuners.lstm import init_weights

        return init_weights(self, generator)

    def build(self, weights: Params, kernel: Kernel = "auto") -> FineTuner:
        from lft.finetuners.lstm import CoordinateLSTM

        return CoordinateLSTM(weights, self, kernel)


@register_finetuner
class SGDSettings(HandDesignedTuner):
    """Gradient descent (eq. 2)."""

    kind: Literal["sgd"] = "sgd"

    def build(self, step_size: float) -> FineTuner:
        from lft.finetuners.gradient_descent import SGD

        return SGD(step_size)


@register_finetuner
class AdamSettings(HandDesignedTuner):
    """Adam (Kingma & Ba, 2015)."""

    kind: Literal["adam"] = "adam"

    def build(self, step_size: float) -> FineTuner:
        from lft.finetuners.gradient_descent import Adam

        return Adam(step_size)
