"""Universal adversarial perturbations of images for a network of one's own (sec. 4, eq. 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lft.config import AttackLoss
from lft.errors import UsageError
from lft.meta.adapt import adapt
from lft.meta.gradients import FirstOrder, Gradient, ZerothOrder
from lft.pretrained import Pretrained, load
from lft.seeding import generator
from lft.tasks.attack import Perturbation
from lft.types import Batch, Params

__all__ = ["AttackLoss", "Success", "measure", "perturbations", "universal"]

DEFAULT = "lft-mnist+cifar10"
"""The fine-tuner that attacks use if none is given."""

Network = Callable[[Tensor], Tensor]
"""Logits (n, classes) for images (n, C, H, W)."""


class Success(NamedTuple):
    """How well a perturbation does.

    Attributes:
        asr: share of images not classified as their label.
        distortion: mean |δ| per pixel.
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
) -> Tensor:
    """One perturbation that makes a network misclassify all of these images.

    >>> import torch
    >>> from lft.attacks import measure, universal
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    >>> images = torch.rand(4, 1, 4, 4)
    >>> labels = model(images).argmax(1)
    >>> universal(model, images, labels, steps=20).shape
    torch.Size([1, 4, 4])

    Args:
        model: gives logits (n, classes) for images (n, C, H, W). A module is put into evaluation
            mode for the attack and back afterwards; its parameters do not change.
        images: (n, C, H, W) in [0, 1], on the model's device.
        labels: (n,) true classes, integers.
        tuner: a trained fine-tuner, or what :func:`lft.load` takes.
        steps: fine-tuning steps. A zeroth-order fine-tuner asks for ``directions`` + 1 losses in
            each and needs no gradient of the model.
        loss: λ, margin, clipping and scale of δ⁽⁰⁾; those that the fine-tuner was trained with by
            default.
        seed: of δ⁽⁰⁾ and zeroth-order directions.

    Returns:
        δ (C, H, W), to be added to any image; :func:`measure` says how well it does.

    Raises:
        UsageError: a shape, type or range does not fit, or there is no such fine-tuner.
    """
    *_, last = perturbations(model, images, labels, tuner=tuner, steps=steps, loss=loss, seed=seed)
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
) -> Iterator[Tensor]:
    """δ (C, H, W) before the first step and after each; arguments as of :func:`universal`."""
    if steps < 1:
        raise UsageError(f"steps is {steps}; it must be at least 1")
    if not isinstance(tuner, Pretrained):
        tuner = load(tuner)
    family = Perturbation(loss or tuner.card.attack_loss, model)
    batch = _batch(family.settings, images, labels)
    random = generator("universal", seed)
    start = family.random((1, *images.shape[1:]), random)
    start = {name: leaf.to(images) for name, leaf in start.items()}
    yield start["delta"][0]
    zeroth = tuner.card.zeroth_order
    gradient: Gradient = ZerothOrder(zeroth, random) if zeroth else FirstOrder()
    points = adapt(family, tuner, start, batch, steps=steps, gradient=gradient)
    for _ in range(steps):
        with torch.no_grad(), evaluating(model):
            point = next(points)
        yield point.params["delta"][0]


@torch.no_grad()
def measure(
    model: Network,
    images: Tensor,
    labels: Tensor,
    perturbation: Tensor,
    *,
    clip: bool = True,
) -> Success:
    """Attack success rate and distortion of a perturbation, as in Table 1.

    Args:
        model: as in :func:`universal`; ``images`` and ``labels`` likewise.
        perturbation: δ (C, H, W).
        clip: keep x + δ in [0, 1].

    Raises:
        UsageError: a shape, type or range does not fit.
    """
    family = Perturbation(AttackLoss(clip=clip), model)
    batch = _batch(family.settings, images, labels)
    if perturbation.shape != images.shape[1:]:
        raise UsageError(
            f"the perturbation is {_shape(perturbation)}, the images {_shape(images[0])}"
        )
    delta: Params = {"delta": perturbation[None].to(images)}
    with evaluating(model):
        metrics = family.metrics(delta, batch)
    return Success(*(round(float(metrics[name]), 6) for name in Success._fields))


@contextmanager
def evaluating(model: Network) -> Iterator[None]:
    """A module in evaluation mode, every part in its own mode again afterwards."""
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    before = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in zip(parts, before, strict=True):
            part.training = training


def _batch(loss: AttackLoss, images: Tensor, labels: Tensor) -> Batch:
    """Images and labels as the only task of a batch."""
    if images.ndim != 4 or not images.is_floating_point() or len(images) == 0:
        raise UsageError(
            f"images must be a float tensor (n, C, H, W), not {images.dtype} {_shape(images)}"
        )
    if loss.clip and not (images.min() >= 0 and images.max() <= 1):
        raise UsageError("images must lie in [0, 1]; divide by 255, or use AttackLoss(clip=False)")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise UsageError(
            f"labels must be {len(images)} integers, not {labels.dtype} {_shape(labels)}"
        )
    return Batch(images[None], labels[None].to(images.device, torch.int64))


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
