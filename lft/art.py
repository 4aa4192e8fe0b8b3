"""A trained fine-tuner as an attack of the Adversarial Robustness Toolbox (``lft[art]``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lft.attacks import DEFAULT, measure, universal
from lft.config import AttackLoss
from lft.errors import UsageError
from lft.pretrained import Pretrained

try:
    from art.attacks.attack import EvasionAttack
    from art.estimators.classification import PyTorchClassifier
    from art.utils import check_and_transform_label_format, get_labels_np_array
except ModuleNotFoundError as error:
    raise UsageError(f"lft.art needs {error.name}; pip install 'lft[art]'") from None


class LearnedUniversalPerturbation(EvasionAttack):  # type: ignore[misc]
    """A universal perturbation found by a trained fine-tuner (sec. 4, eq. 12).

    Args:
        classifier: a PyTorch classifier with logits as outputs; its preprocessing is part of what
            is attacked, and its ``clip_values`` are the range of pixels, (0, 1) if it has none.
        tuner: a trained fine-tuner, or what :func:`lft.load` takes.
        steps: fine-tuning steps.
        loss: as in :func:`lft.attacks.universal`.
        seed: of δ⁽⁰⁾ and zeroth-order directions.

    Raises:
        art.exceptions.EstimatorError: the classifier is not a PyTorch one.
    """

    attack_params = [*EvasionAttack.attack_params, "tuner", "steps", "loss", "seed"]  # noqa: RUF012
    _estimator_requirements = (PyTorchClassifier,)

    def __init__(
        self,
        classifier: PyTorchClassifier,
        tuner: Pretrained | str | Path = DEFAULT,
        steps: int = 100,
        loss: AttackLoss | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(estimator=classifier)
        self.tuner = tuner
        self.steps = steps
        self.loss = loss
        self.seed = seed
        self._noise: NDArray[np.float32] | None = None
        self._fooling_rate: float | None = None

    @property
    def noise(self) -> NDArray[np.float32] | None:
        """δ (1, C, H, W) of the last call of :meth:`generate`, in units of the pixels."""
        return self._noise

    @property
    def fooling_rate(self) -> float | None:
        """Share of images that the last call of :meth:`generate` fooled the classifier on."""
        return self._fooling_rate

    def generate(
        self, x: NDArray[np.float32], y: NDArray[Any] | None = None, **kwargs: Any
    ) -> NDArray[np.float32]:
        """x + δ, kept within the pixels' range.

        Args:
            x: images (n, C, H, W).
            y: labels, (n,) or one-hot (n, classes); the classifier's predictions by default.

        Raises:
            UsageError: the classifier's images are not (n, C, H, W), or x leaves their range.
        """
        if y is None:
            y = get_labels_np_array(self.estimator.predict(x))
        one_hot = check_and_transform_label_format(y, nb_classes=self.estimator.nb_classes)
        labels = torch.as_tensor(np.asarray(one_hot).argmax(1))
        clip_values = self.estimator.clip_values
        low, high = (0.0, 1.0) if clip_values is None else map(float, clip_values)
        images = (torch.as_tensor(x, device=self.estimator.device) - low) / (high - low)

        def model(scaled: Tensor) -> Tensor:
            logits: Tensor = self.estimator._predict_framework(low + (high - low) * scaled)[0]
            return logits

        delta = universal(
            model, images, labels, tuner=self.tuner, steps=self.steps, loss=self.loss,
            seed=self.seed,
        )  # fmt: skip
        self._fooling_rate = measure(model, images, labels, delta).asr
        self._noise = ((high - low) * delta[None]).cpu().numpy()
        adversarial: NDArray[np.float32] = np.clip(x + self._noise, low, high).astype(x.dtype)
        return adversarial
