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
        classifier: a PyTorch classifier with logits as outputs; its preprocessing is part of what
            is attacked, and its ``clip_values`` are the range of pixels, (0, 1) if it has none.
        tuner: a trained fine-tuner, or what :func:`lft.load` takes.
        steps: fine-tuning steps.
        loss: as in :func:`lft.attacks.universal`.
        seed: of δ⁽⁰⁾ and zeroth-order directions.
        batch_size: images that the network is asked about at once.

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
        """δ (1, C, H, W) of the last call of :meth:`generate`, in units of the pixels."""
        return self._noise

    @property
    def fooling_rate(self) -> float | None:
        """Share of the images that :meth:`generate` returned last that fool the classifier."""
        return self._fooling_rate

    def generate(
        self, x: NDArray[Any], y: NDArray[Any] | None = None, **kwargs: Any
    ) -> NDArray[Any]:
        """x + δ, kept within the pixels' range and of the type of x: integers are rounded.

        Args:
            x: images (n, C, H, W), of floats or integers.
            y: labels, (n,) or one-hot (n, classes); the classifier's predictions by default.

        Raises:
            UsageError: the classifier's images are not (n, C, H, W), or x leaves their range.
        """
        low, high = self._range()
        images = torch.as_tensor(self._floats(x), device=self.estimator.device)
        if not ((images >= low) & (images <= high)).all():
            raise UsageError("x leaves the classifier's clip_values; make it with those of x")
        if y is None:
            y = get_labels_np_array(self.estimator.predict(self._floats(x)))
        classes = self.estimator.nb_classes
        if np.ndim(y) == 1 and not ((y >= 0) & (y < classes)).all():
            raise UsageError(f"y has labels outside of the classifier's {classes} classes")
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
        """The lowest and highest pixels, numbers or arrays that fit the images, as tensors."""
        values = (0.0, 1.0) if self.estimator.clip_values is None else self.estimator.clip_values
        low, high = (torch.as_tensor(np.asarray(value, np.float32)) for value in values)
        return low.to(self.estimator.device), high.to(self.estimator.device)

    def _floats(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Pixels of any type as the network's."""
        kinds = {torch.float64: np.float64, torch.float16: np.float16}
        weight = next(self.estimator.model.parameters(), torch.empty(0))
        return np.asarray(x, kinds.get(weight.dtype, np.float32))

    def _in_range(self, pixels: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Pixels within the range, rounded if they are integers."""
        low, high = (bound.cpu().numpy() for bound in self._range())
        clipped = np.clip(pixels, low, high)
        return (clipped if dtype.kind == "f" else np.rint(clipped)).astype(dtype)
