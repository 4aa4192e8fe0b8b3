"""Settings of fine-tuners."""

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
    """Base of the settings of fine-tuners; profiles and the method table name them by ``kind``.

    Subclass :class:`LearnedTuner` or :class:`HandDesignedTuner`. The module of a subclass must not
    import torch.
    """

    learned: ClassVar[bool]

    kind: str


class LearnedTuner(TunerSettings):
    """Base of the settings of fine-tuners whose update rule m_φ has learned weights φ."""

    learned = True

    def initial(self, generator: Generator) -> Params:
        """Draw φ as it is before meta-training, without a task axis."""
        raise NotImplementedError

    def build(self, weights: Params, kernel: Kernel = "auto") -> FineTuner:
        """Build the fine-tuner with these weights, differentiable in them.

        Args:
            weights: φ, with the names and shapes of :meth:`initial`.
            kernel: native kernels or plain PyTorch; see :data:`lft.kernels.build.Kernel`.
        """
        raise NotImplementedError


class HandDesignedTuner(TunerSettings):
    """Base of the settings of fine-tuners that have a step size and no learned weights."""

    learned = False

    def build(self, step_size: float) -> FineTuner:
        """Build the fine-tuner with this step size."""
        raise NotImplementedError


FINETUNERS = Kinds("fine-tuner", TunerSettings, default="lstm")
"""Settings of fine-tuners by kind; plug-ins add theirs."""

Tuner = Annotated[SerializeAsAny[TunerSettings], FINETUNERS]

register_finetuner = FINETUNERS.register


@register_finetuner
class LSTMSettings(LearnedTuner):
    """The coordinate-wise LSTM fine-tuner m_phi (eq. 3)."""

    kind: Literal["lstm"] = "lstm"
    layers: Annotated[int, Field(ge=1, le=2)] = 1  #: LSTM layers
    #: cells per layer
    hidden: Annotated[int, Field(ge=1, le=1024, strict=True)] = 10
    #: p, the log-magnitude range of the preprocessing (Andrychowicz et al., 2016, appendix A)
    preprocess_p: Annotated[float, Field(gt=0, le=80)] = 10.0
    output_scale: Rate = 0.1  #: factor of the output, in units of the optimizee

    def initial(self, generator: Generator) -> Params:
        """See :meth:`LearnedTuner.initial`."""
        from lft.finetuners.lstm import init_weights

        return init_weights(self, generator)

    def build(self, weights: Params, kernel: Kernel = "auto") -> FineTuner:
        """See :meth:`LearnedTuner.build`."""
        from lft.finetuners.lstm import CoordinateLSTM

        return CoordinateLSTM(weights, self, kernel)


@register_finetuner
class SGDSettings(HandDesignedTuner):
    """Gradient descent (eq. 2)."""

    kind: Literal["sgd"] = "sgd"

    def build(self, step_size: float) -> FineTuner:
        """See :meth:`HandDesignedTuner.build`."""
        from lft.finetuners.gradient_descent import SGD

        return SGD(step_size)


@register_finetuner
class AdamSettings(HandDesignedTuner):
    """Adam (Kingma & Ba, 2015)."""

    kind: Literal["adam"] = "adam"

    def build(self, step_size: float) -> FineTuner:
        """See :meth:`HandDesignedTuner.build`."""
        from lft.finetuners.gradient_descent import Adam

        return Adam(step_size)
