"""Universal adversarial perturbations of images for any network (sec. 4, eq. 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lft.config import AttackLoss
from lft.errors import UsageError
from lft.meta.adapt import adapt
from lft.meta.gradients import FirstOrder, Gradient, ZerothOrder, value_and_grad
from lft.pretrained import Pretrained, load
from lft.runtime.modes import evaluating, held, own_modes
from lft.seeding import check_seed, generator
from lft.tasks.attack import Perturbation
from lft.tasks.base import Differentiated
from lft.types import Batch, Params

__all__ = ["AttackLoss", "Success", "measure", "perturbations", "universal"]

DEFAULT = "lft-mnist+cifar10"
"""Name of the fine-tuner that attacks use by default."""

Network = Callable[[Tensor], Tensor]
"""A function from images (n, C, H, W) to logits (n, classes)."""


class Success(NamedTuple):
    """Success of a perturbation.

    Attributes:
        asr: attack success rate, the share of images not classified as their label, in [0, 1].
        distortion: mean |δ| per pixel, in pixel units.
    """

    asr: float
    distortion: float


def universal(
    model: Network,
    images: Tensor,
    labels: Tensor,
    *,
    tuner: Pretrained | str | Path = DEFAULT,
    steps: int = 100,
    loss: AttackLoss | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """Find one perturbation that makes a network misclassify all the images (eq. 12).

    >>> import torch
    >>> from lft.attacks import measure, universal
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    >>> images = torch.rand(4, 1, 4, 4)
    >>> labels = model(images).argmax(1)
    >>> universal(model, images, labels, steps=20).shape
    torch.Size([1, 4, 4])

    Args:
        model: maps images (n, C, H, W) to logits (n, classes). The attack puts a module, and any
            modules that a function, method or object holds, into evaluation mode and restores their
            modes afterwards. The caller must fix any other randomness. Parameters do not change.
        images: (n, C, H, W) in [0, 1], on the model's device.
        labels: true classes (n,), integers.
        tuner: a trained fine-tuner, or an argument of :func:`lft.load`.
        steps: fine-tuning steps K. Each step of a zeroth-order fine-tuner evaluates
            ``directions`` + 1 losses and needs no gradient of the model.
        loss: λ, margin, clipping and scale of δ⁽⁰⁾; by default those of the fine-tuner's training.
        seed: seed of δ⁽⁰⁾ and zeroth-order directions.
        batch_size: images per forward pass of the network; it changes the result only by rounding.

    Returns:
        δ (C, H, W), to add to any image. :func:`measure` evaluates it. Torch modes of the caller
        (no gradients, inference, autocast, default device and dtype) do not affect it.

    Raises:
        UsageError: a shape, type or range does not fit, or the fine-tuner does not exist.
    """
    *_, last = perturbations(
        model, images, labels, tuner=tuner, steps=steps, loss=loss, seed=seed, batch_size=batch_size
    )
    return last


def perturbations(
    model: Network,
    images: Tensor,
    labels: Tensor,
    *,
    tuner: Pretrained | str | Path = DEFAULT,
    steps: int = 100,
    loss: AttackLoss | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> Iterator[Tensor]:
    """Yield δ (C, H, W) before the first step and after each; arguments as :func:`universal`."""
    if not isinstance(tuner, Pretrained):
        tuner = load(tuner)
    if loss is None:
        loss = tuner.card.attack_loss
    whole_number("steps", steps)
    check_seed(seed)
    family, batch = _problem(loss, model, images, labels, batch_size)
    random = generator("universal", seed)
    with own_modes():
        start = family.random((1, *images.shape[1:]), random, torch.float32)
        start = {name: leaf.to(images) for name, leaf in start.items()}
    yield start["delta"][0].clone()
    zeroth = tuner.card.zeroth_order
    gradient: Gradient = ZerothOrder(zeroth, random) if zeroth else FirstOrder()
    points = adapt(family, tuner, start, batch, steps=steps, gradient=gradient)
    modules = held(model)
    for _ in range(steps):
        with evaluating(modules):
            point = next(points)
        yield point.params["delta"][0].clone()


def measure(
    model: Network,
    images: Tensor,
    labels: Tensor,
    perturbation: Tensor,
    *,
    clip: bool = True,
    batch_size: int = 256,
) -> Success:
    """Measure attack success rate and distortion of a perturbation, as in Table 1.

    Args:
        model: as in :func:`universal`.
        images: as in :func:`universal`.
        labels: as in :func:`universal`.
        perturbation: δ (C, H, W).
        clip: keep x + δ in [0, 1].
        batch_size: as in :func:`universal`.

    Raises:
        UsageError: a shape, type or range does not fit.
    """
    family, batch = _problem(AttackLoss(clip=clip), model, images, labels, batch_size)
    if not isinstance(perturbation, Tensor) or perturbation.shape != images.shape[1:]:
        is_tensor = isinstance(perturbation, Tensor)
        found = _shape(perturbation) if is_tensor else _described(perturbation)
        raise UsageError(f"the perturbation is {found}, the images {_shape(images[0])}")
    with evaluating(held(model)):
        metrics = family.metrics({"delta": perturbation[None].to(images)}, batch)
    return Success(*(round(float(metrics[name]), 6) for name in Success._fields))


class _Network:
    """The caller's network, run in batches; its outputs must be logits (n, classes)."""

    def __init__(self, model: Network, labels: Tensor, batch_size: int) -> None:
        whole_number("batch_size", batch_size)
        self.model = model
        self.batch_size = batch_size
        self.range = int(labels.min()), int(labels.max())

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([self._ask(part) for part in images.split(self.batch_size)])

    def _ask(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        n_images = len(images)
        fits = isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == n_images
        if not fits or not logits.is_floating_point():
            raise UsageError(
                f"the network must give logits (n, classes), not {_described(logits)}"
                + (f" for {n_images} images" if isinstance(logits, Tensor) else "")
            )
        classes = logits.shape[1]
        if classes < 2:
            raise UsageError(
                f"the network gives {classes} logit; an attack needs two classes or more"
            )
        for label in self.range:
            if not 0 <= label < classes:
                raise UsageError(
                    f"label {label}, but the network has {classes} classes (0 to {classes - 1})"
                )
        if logits.isnan().any() and not images.isnan().any():
            raise UsageError("the network gives NaN; check its weights and the images' range")
        return logits.to(images.device, torch.promote_types(logits.dtype, torch.float32))


class _Universal(Perturbation, Differentiated):
    """The loss of eq. 12 over many images, with its gradient summed over parts.

    f(δ; D) = Σ_i |D_i| / |D| f(δ; D_i) for a partition of D into D_i.
    """

    def __init__(self, settings: AttackLoss, network: _Network) -> None:
        super().__init__(settings, network)
        self.size = network.batch_size

    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params]:
        """See :class:`lft.tasks.base.Differentiated`."""
        part = Perturbation(self.settings, self._with_gradient)
        pieces = zip(batch.x.split(self.size, 1), batch.y.split(self.size, 1), strict=True)
        sums = torch.zeros_like(params["delta"])
        losses = sums.new_zeros(len(sums))
        for piece in map(Batch._make, pieces):
            share = piece.size / batch.size
            values, gradients = value_and_grad(part, params, piece)
            losses = losses + share * values
            sums += share * gradients["delta"]
        return losses, {"delta": sums}

    def _with_gradient(self, images: Tensor) -> Tensor:
        logits = self.victim(images)
        if not logits.requires_grad:
            raise UsageError(
                "the network's logits have no gradient; remove detach() and no_grad() from it, or "
                "attack with a zeroth-order fine-tuner"
            )
        return logits


def _problem(
    loss: AttackLoss, model: Network, images: Tensor, labels: Tensor, batch_size: int
) -> tuple[_Universal, Batch]:
    """Build the attack's objective, and the images and labels as a batch of one task."""
    if not isinstance(loss, AttackLoss):
        raise UsageError(f"loss must be an AttackLoss, not {_described(loss)}")
    if not callable(model):
        raise UsageError(f"the network must be a module or a function, not {_described(model)}")
    with own_modes():
        x, y = _checked(loss, images, labels)
        return _Universal(loss, _Network(model, y, batch_size)), Batch(x[None], y[None])


def _checked(loss: AttackLoss, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Check images and labels and convert them to the types that the attack needs."""
    good = isinstance(images, Tensor) and images.ndim == 4 and images.is_floating_point()
    if not good or images.numel() == 0:
        raise UsageError(f"images must be a float tensor (n, C, H, W), not {_described(images)}")
    if not images.isfinite().all():
        raise UsageError("images hold NaN or infinite pixels; remove these images")
    if loss.clip and not (images.min() >= 0 and images.max() <= 1):
        raise UsageError("images must lie in [0, 1]; divide by 255, or use AttackLoss(clip=False)")
    if (
        not isinstance(labels, Tensor)
        or labels.dtype not in INTEGERS
        or (labels.shape != images.shape[:1])
    ):
        raise UsageError(f"labels must be {len(images)} integers, not {_described(labels)}")
    # Autograd cannot use inference tensors, but it can use copies of them.
    return _ordinary(images.detach()), _ordinary(labels.to(images.device, torch.int64))


def _ordinary(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def whole_number(name: str, value: int) -> None:
    """Check that an argument is an integer of at least 1.

    Args:
        name: the argument's name, for the message.
        value: its value.

    Raises:
        UsageError: the value is not such an integer.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        shown = repr(value) if isinstance(value, int | float | str) else _described(value)
        raise UsageError(f"{name} is {shown}; it must be a whole number of at least 1")


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {_shape(value)}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
