"""Networks whose weights differ from task to task: every parameter is (B, …)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional

from lft.kernels import build as native
from lft.kernels import cnn as fused_cnn
from lft.kernels import mlp as fused_mlp
from lft.kernels.build import Kernel
from lft.types import Batch, Params, TaskBatch


class Network(Protocol):
    """A function of per-task parameters and per-task inputs."""

    def init(self, n_tasks: int, generator: Generator) -> Params:
        """Random parameters of B networks, each (B, …)."""

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Outputs (B, n, outputs) for inputs (B, n, …)."""

    def cross_entropy(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of each task (B,)."""

    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        """See :func:`lft.kernels.build.loss_and_gradients`; None where no kernel applies."""

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params] | None:
        """See :func:`lft.kernels.build.descend`; None where no kernel applies."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over examples, (B,), for logits (B, n, classes) and labels (B, n)."""
    losses = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    return losses.view(y.shape).mean(1)


def _uniform(shape: tuple[int, ...], fan_in: int, generator: Generator) -> Tensor:
    """Uniform in ±1/√fan_in, as ``torch.nn.Linear`` and ``Conv2d`` start."""
    return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(fan_in)


class MLP:
    """Fully connected ReLU network; all tasks go through one batched matrix product a layer.

    Args:
        widths: input, hidden and output widths.
        kernel: ``torch`` is the plain path, else :mod:`lft.kernels.mlp` where it applies.
    """

    def __init__(self, widths: tuple[int, ...], kernel: Kernel = "auto") -> None:
        self.widths = widths
        self.kernel = kernel

    def init(self, n_tasks: int, generator: Generator) -> Params:
        params = {}
        for layer, (inputs, outputs) in enumerate(pairwise(self.widths)):
            params[f"w{layer}"] = _uniform((n_tasks, inputs, outputs), inputs, generator)
            params[f"b{layer}"] = torch.zeros(n_tasks, 1, outputs)
        return params

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        x = x.flatten(2)
        last = len(self.widths) - 2
        for layer in range(last + 1):
            x = torch.baddbmm(params[f"b{layer}"], x, params[f"w{layer}"])
            if layer < last:
                x = x.relu()
        return x

    def cross_entropy(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        def plain(leaves: Params) -> Tensor:
            return cross_entropy(self(leaves, x), y)

        if self._use_fused(x) and torch.is_grad_enabled():
            return fused_mlp.loss(self._in_order(params), x.flatten(2), y, plain)
        return plain(params)

    def squared_error(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """Mean squared error of each task, (B,), for targets (B, n, outputs)."""

        def plain(leaves: Params) -> Tensor:
            squares = functional.mse_loss(self(leaves, x), y, reduction="none")
            return squares.mean(dim=(1, 2))

        if self._use_fused(x) and torch.is_grad_enabled():
            return fused_mlp.loss(self._in_order(params), x.flatten(2), y, plain)
        return plain(params)

    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        if not self._use_fused(batch.x):
            return None
        return fused_mlp.loss_and_gradients(
            self._in_order(params), Batch(batch.x.flatten(2), batch.y)
        )

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params] | None:
        if not self._use_fused(tasks.support.x):
            return None
        flat = TaskBatch(*(Batch(part.x.flatten(2), part.y) for part in tasks))
        return fused_mlp.descend(self._in_order(params), flat, steps, step_size)

    def _in_order(self, params: Params) -> Params:
        """As ``init`` orders them; parameters from a file come in alphabetical order."""
        layers = range(len(self.widths) - 1)
        return {name: params[name] for layer in layers for name in (f"w{layer}", f"b{layer}")}

    def _use_fused(self, x: Tensor) -> bool:
        return native.chosen(self.kernel, x.device, x.dtype)


def grouped_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3×3 convolution of stride 2 with other weights for each task, a group of channels each.

    Args:
        x: (n, B, C, H, W).
        weight: (B, outputs, C, 3, 3).
        bias: (B, outputs).

    Returns:
        (n, B, outputs, ⌈H/2⌉, ⌈W/2⌉).
    """
    groups = weight.shape[:2]
    channels, flat = x.flatten(1, 2), weight.flatten(0, 1)
    y = functional.conv2d(channels, flat, bias.flatten(), stride=2, padding=1, groups=groups[0])
    return y.view(len(x), *groups, *y.shape[2:])


def unfolded_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as one batched product with all 3×3 patches.

    A GPU's grouped convolutions run a kernel for each group and are many times slower.
    """
    patches = functional.pad(x, (1, 1, 1, 1)).unfold(3, 3, 2).unfold(4, 3, 2)
    n_images, _, _, height, width = patches.shape[:5]
    columns = patches.permute(1, 2, 5, 6, 0, 3, 4).flatten(4).flatten(1, 3)
    y = torch.baddbmm(bias[..., None], weight.flatten(2), columns)
    return y.view(*y.shape[:2], n_images, height, width).movedim(2, 0)


class CNN:
    """3×3 convolutions of stride 2 with ReLU, then a linear layer.

    Args:
        shape: channels, height and width of the images.
        channels: output channels of each convolution.
        outputs: width of the linear layer.
        kernel: ``torch`` is the plain path, else :mod:`lft.kernels.cnn` where it applies.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: tuple[int, ...],
        outputs: int,
        kernel: Kernel = "auto",
    ) -> None:
        self.kernel = kernel
        self.channels = (shape[0], *channels)
        self.outputs = outputs
        height, width = shape[1:]
        for _ in channels:
            height, width = (height + 1) // 2, (width + 1) // 2
        self.features = channels[-1] * height * width

    def init(self, n_tasks: int, generator: Generator) -> Params:
        params = {}
        for layer, (inputs, outputs) in enumerate(pairwise(self.channels)):
            shape = (n_tasks, outputs, inputs, 3, 3)
            params[f"conv{layer}"] = _uniform(shape, 9 * inputs, generator)
            params[f"bias{layer}"] = torch.zeros(n_tasks, outputs)
        head = (n_tasks, self.features, self.outputs)
        params["head"] = _uniform(head, self.features, generator)
        params["head_bias"] = torch.zeros(n_tasks, 1, self.outputs)
        return params

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        if self._use_fused(x) and not torch.is_grad_enabled():
            return fused_cnn.logits(self._in_order(params), x)
        return self._plain(params, x)

    def cross_entropy(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        if self._use_fused(x) and torch.is_grad_enabled():
            return fused_cnn.cross_entropy(
                self._in_order(params),
                x,
                y,
                lambda leaves: cross_entropy(self._plain(leaves, x), y),
            )
        return cross_entropy(self(params, x), y)

    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        if not self._use_fused(batch.x):
            return None
        return fused_cnn.loss_and_gradients(self._in_order(params), batch)

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params] | None:
        if not self._use_fused(tasks.support.x):
            return None
        return fused_cnn.descend(self._in_order(params), tasks, steps, step_size)

    def _in_order(self, params: Params) -> Params:
        """As ``init`` orders them; parameters from a file come in alphabetical order."""
        layers = range(len(self.channels) - 1)
        names = [f"{kind}{layer}" for layer in layers for kind in ("conv", "bias")]
        return {name: params[name] for name in (*names, "head", "head_bias")}

    def _use_fused(self, x: Tensor) -> bool:
        return native.chosen(self.kernel, x.device, x.dtype)

    def _plain(self, params: Params, x: Tensor) -> Tensor:
        convolve = grouped_convolution if x.device.type == "cpu" else unfolded_convolution
        x = x.transpose(0, 1)
        for layer in range(len(self.channels) - 1):
            x = convolve(x, params[f"conv{layer}"], params[f"bias{layer}"]).relu()
        x = x.flatten(2).transpose(0, 1)
        return torch.baddbmm(params["head_bias"], x, params["head"])
