"""LeNet-5, the victim of the universal attacks (LeCun et al., 1998)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init

from lft.config import LENET_SIDES, VictimSettings
from lft.data import ImageSet
from lft.data.images import in_unit_range
from lft.errors import UsageError
from lft.kernels import build as native
from lft.kernels import lenet
from lft.kernels.build import Kernel
from lft.seeding import generator, seed_from


def pooled_convolution(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """``max_pool2d(layer(x), 2)`` for a 5×5 layer, on blocks of 2×2 pixels (space to depth).

    Each position in a pooling window becomes a separate output channel, whose kernel is the layer's
    shifted by at most one pixel. On blocks all four kernels are 3×3, and pooling is a maximum over
    channels. With LeNet's few channels this takes half the time of convolving, then pooling.

    Args:
        x: (n, C, H, W) with even H and W.
        layer: 5×5, stride 1.

    Returns:
        (n, outputs, H', W'), half the height and width of the layer's output.
    """
    shifts = [(column, 1 - column, row, 1 - row) for row in (0, 1) for column in (0, 1)]
    kernels = torch.cat([functional.pad(layer.weight, shift) for shift in shifts])
    blocks = functional.pixel_unshuffle(x, 2)
    bias = None if layer.bias is None else layer.bias.repeat(4)
    padding = int(layer.padding[0]) // 2
    y = functional.conv2d(blocks, functional.pixel_unshuffle(kernels, 2), bias, padding=padding)
    pooled: Tensor = y.unflatten(1, (4, layer.out_channels)).amax(1)
    return pooled


class Victim(nn.Module):
    """A network under attack: maps images (n, C, H, W) in [0, 1] to logits (n, classes)."""

    def with_pullback(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]] | None:
        """Logits and their pullback to the images, without autograd.

        Args:
            images: (n, C, H, W) in [0, 1].

        Returns:
            Logits (n, classes) and a function that maps a gradient with respect to the logits to
            the gradient with respect to the images; None where autograd is needed.
        """
        return None


class LeNet5(Victim):
    """LeNet-5 with ReLU and max-pooling, for images in [0, 1] of 28×28 (padded) or 32×32 pixels.

    The initial weights are the same for all networks of these sizes; see :meth:`initialise`.

    Args:
        shape: channels, height and width of the images.
        n_classes: number of outputs.
        kernel: ``torch`` for plain PyTorch, otherwise :mod:`lft.kernels.lenet` where it applies: it
            needs constant convolution weights.

    Raises:
        UsageError: the images have another size.
    """

    def __init__(
        self, shape: tuple[int, int, int], n_classes: int, kernel: Kernel = "auto"
    ) -> None:
        super().__init__()
        self.kernel = kernel
        channels, height, width = shape
        if height != width or height not in LENET_SIDES:
            raise UsageError(
                f"LeNet-5 takes images of 28x28 or 32x32 pixels, not {height}x{width}; "
                f"resize the images"
            )
        padding = (32 - height) // 2
        self.conv1 = _blank(nn.Conv2d, channels, 6, 5, padding=padding)
        self.conv2 = _blank(nn.Conv2d, 6, 16, 5)
        self.fc1 = _blank(nn.Linear, 16 * 5 * 5, 120)
        self.fc2 = _blank(nn.Linear, 120, 84)
        self.fc3 = _blank(nn.Linear, 84, n_classes)
        self.initialise(0)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) for images (n, C, H, W)."""
        x = self.fc1(self.features(images)).relu()
        logits: Tensor = self.fc3(self.fc2(x).relu())
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Features (n, 400) that the convolutions extract from images (n, C, H, W)."""
        weights = self._constants(images)
        if weights is None:
            return self._plain_features(images)
        return lenet.features(weights, images, self._plain_features)

    def with_pullback(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]] | None:
        """See :meth:`Victim.with_pullback`; None where the native convolutions do not apply."""
        weights = self._constants(images)
        if weights is None:
            return None
        features, features_pullback = lenet.with_pullback(weights, images)
        hidden1 = self.fc1(features).relu()
        hidden2 = self.fc2(hidden1).relu()

        def pullback(d_logits: Tensor) -> Tensor:
            d_hidden2 = (d_logits @ self.fc3.weight).where(hidden2 > 0, 0)
            d_hidden1 = (d_hidden2 @ self.fc2.weight).where(hidden1 > 0, 0)
            return features_pullback(d_hidden1 @ self.fc1.weight)

        return self.fc3(hidden2), pullback

    def _constants(self, images: Tensor) -> list[Tensor] | None:
        """The convolutions' weights if they are constants and the kernel applies, else None."""
        weights: list[Tensor] = [*self.conv1.parameters(), *self.conv2.parameters()]
        constant = not any(weight.requires_grad for weight in weights)
        served = constant and native.chosen(self.kernel, images.device, images.dtype)
        return weights if served else None

    def _plain_features(self, images: Tensor) -> Tensor:
        for layer in (self.conv1, self.conv2):
            images = pooled_convolution(images, layer).relu()
        return images.flatten(1)

    def initialise(self, seed: int) -> None:
        """Draw weights and biases uniformly in ±1/√fan_in, torch's default, from a seed."""
        random = torch.Generator("cpu").manual_seed(seed)
        with torch.no_grad():
            for layer in (self.conv1, self.conv2, self.fc1, self.fc2, self.fc3):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                for parameter in layer.parameters():
                    parameter.uniform_(-bound, bound, generator=random)


def _blank(layer: type[nn.Module], *sizes: int, **options: Any) -> Any:
    """A layer with unset weights; constructing it draws nothing from the global generator."""
    return skip_init(layer, *sizes, device="cpu", dtype=torch.float32, **options)


def train_victim(
    images: ImageSet, settings: VictimSettings, name: str, device: torch.device | str
) -> LeNet5:
    """Train LeNet-5 on all training images with Adam and a cosine schedule.

    Args:
        images: the image source.
        settings: learning rate, batch size and epochs.
        name: key of the random draws.
        device: where to train.

    Returns:
        The victim in evaluation mode, with constant weights.
    """
    shape = images.train_images.shape
    victim = LeNet5((shape[1], shape[2], shape[3]), len(images.classes))
    victim.initialise(seed_from("victim", name))
    victim.to(device)
    pixels, labels = images.train_images.to(device), images.train_labels.to(device)
    optimizer = torch.optim.Adam(victim.parameters(), lr=settings.learning_rate)
    n_batches, epochs = math.ceil(len(labels) / settings.batch), settings.trained_for
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * n_batches)
    for epoch in range(epochs):
        random = generator("victim", name, epoch)
        order = torch.randperm(len(labels), generator=random, device=random.device).to(device)
        for indices in order.split(settings.batch):
            optimizer.zero_grad()
            logits = victim(in_unit_range(pixels[indices]))
            functional.cross_entropy(logits, labels[indices]).backward()
            optimizer.step()
            schedule.step()
    return victim.requires_grad_(False).eval()


@torch.no_grad()
def correct(victim: Victim, images: Tensor, labels: Tensor) -> Tensor:
    """Mask, bool (n,), of the uint8 images (n, C, H, W) that the victim classifies correctly."""
    parts = [
        victim(in_unit_range(part)).argmax(1) == truth
        for part, truth in zip(images.split(1000), labels.split(1000), strict=True)
    ]
    return torch.cat(parts)
