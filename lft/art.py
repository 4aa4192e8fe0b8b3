"""A trained fine-tuner as an attack of the Adversarial Robustness Toolbox (``lft[art]``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lft.attacks import DEFAULT, universal
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
        classifier: a PyTorch classifier that outputs logits. The attack includes its preprocessing.
            Its ``clip_values`` are the range of pixels, (0, 1) if it has none.
        tuner: a trained fine-tuner, or an argument of :func:`lft.load`.
        steps: fine-tuning steps K.
        loss: as in :func:`lft.attacks.universal`.
        seed: seed of δ⁽⁰⁾ and zeroth-order directions.
        batch_size: images per forward pass of the network.

    Raises:
        art.exceptions.EstimatorError: the classifier is not a PyTorch one.
    """

    attack_params = [*EvasionAttack.attack_params, "tuner", "steps", "loss", "seed", "batch_size"]  # noqa: RUF012
    _estimator_requirements = (PyTorchClassifier,)

    def __init__(
        self,
        classifier: PyTorchClassifier,
        tuner: Pretrained | str | Path = DEFAULT,
        steps: int = 100,
        loss: AttackLoss | None = None,
        seed: int = 0,
        batch_size: int = 256,
    ) -> None:
        super().__init__(estimator=classifier)
        self.tuner = tuner
        self.steps = steps
        self.loss = loss
        self.seed = seed
        self.batch_size = batch_size
        self._noise: NDArray[np.float32] | None = None
        self._fooling_rate: float | None = None

    @property
    def noise(self) -> NDArray[np.float32] | None:
        """δ (1, C, H, W) from the last call of :meth:`generate`, in pixel units."""
        return self._noise

    @property
    def fooling_rate(self) -> float | None:
        """Share of the last images from :meth:`generate` that fool the classifier, in [0, 1]."""
        return self._fooling_rate

    def generate(
        self, x: NDArray[Any], y: NDArray[Any] | None = None, **kwargs: Any
    ) -> NDArray[Any]:
        """Find a universal perturbation δ and apply it.

        Args:
            x: images (n, C, H, W), floats or integers in the classifier's range.
            y: labels, (n,) or one-hot (n, classes); by default the classifier's predictions.
            kwargs: ignored; ART's interface has them.

        Returns:
            x + δ, clipped to the pixels' range, in the dtype of x. Integers are rounded.

        Raises:
            UsageError: x is not (n, C, H, W) or exceeds the range, or y names no class.
        """
        low, high = self._range()
        images = torch.as_tensor(self._floats(x), device=self.estimator.device)
        if not ((images >= low) & (images <= high)).all():
            raise UsageError(
                "x has values outside the classifier's clip_values; set them to the range of x"
            )
        if y is None:
            y = get_labels_np_array(self.estimator.predict(self._floats(x)))
        classes = self.estimator.nb_classes
        if np.ndim(y) == 1 and not ((y >= 0) & (y < classes)).all():
            raise UsageError(f"y has labels outside the classifier's {classes} classes")
        labels = np.asarray(check_and_transform_label_format(y, nb_classes=classes)).argmax(1)

        def model(scaled: Tensor) -> Tensor:
            logits: Tensor = self.estimator._predict_framework(low + (high - low) * scaled)[0]
            return logits

        delta = universal(
            model,
            (images - low) / (high - low),
            torch.as_tensor(labels),
            tuner=self.tuner,
            steps=self.steps,
            loss=self.loss,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        self._noise = ((high - low) * delta[None]).cpu().numpy()
        adversarial = self._in_range(self._floats(x) + self._noise, x.dtype)
        predicted = self.estimator.predict(self._floats(adversarial)).argmax(1)
        self._fooling_rate = float((predicted != labels).mean())
        return adversarial

    def _range(self) -> tuple[Tensor, Tensor]:
        """Return the lowest and highest pixel values as tensors that broadcast to the images."""
        values = (0.0, 1.0) if self.estimator.clip_values is None else self.estimator.clip_values
        low, high = (torch.as_tensor(np.asarray(value, np.float32)) for value in values)
        return low.to(self.estimator.device), high.to(self.estimator.device)

    def _floats(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Convert pixels of any type to the network's float type."""
        kinds = {torch.float64: np.float64, torch.float16: np.float16}
        weight = next(self.estimator.model.parameters(), torch.empty(0))
        return np.asarray(x, kinds.get(weight.dtype, np.float32))

    def _in_range(self, pixels: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Clip pixels to the range and convert them to ``dtype``, rounding for integers."""
        low, high = (bound.cpu().numpy() for bound in self._range())
        clipped = np.clip(pixels, low, high)
        return (clipped if dtype.kind == "f" else np.rint(clipped)).astype(dtype)
