"""Batches of networks, one per task: every parameter is (B, …)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional

from lft import shapes
from lft.kernels import build as native
from lft.kernels import cnn, mlp
from lft.kernels.build import Kernel
from lft.shapes import Shapes
from lft.tasks.base import Differentiated, TaskFamily
from lft.types import Batch, Params, TaskBatch


class Network(ABC):
    """A function of per-task parameters and per-task inputs.

    Args:
        shapes: of the parameters, without their task axis.
        layers: number of layers; a CNN counts only its convolutions.
        kernel: ``torch`` for plain PyTorch, otherwise the native kernels where they apply.
    """

    def __init__(self, shapes: Shapes, layers: int, kernel: Kernel) -> None:
        self.shapes = shapes
        self.layers = layers
        self.kernel = kernel

    def init(
        self, n_tasks: int, generator: Generator, dtype: torch.dtype = torch.float32
    ) -> Params:
        """Draw parameters of B networks: zero biases, and weights uniform in ±1/√fan_in.

        The weights follow the defaults of ``torch.nn.Linear`` and ``Conv2d``.

        Returns:
            Weights (B, inputs, outputs) of linear layers and (B, outputs, inputs, 3, 3) of
            convolutions; biases as the shapes say.
        """
        params, where = {}, generator.device
        for name, shape in self.shapes.items():
            full = (n_tasks, *map(int, shape))
            if name.startswith("b") or name.endswith("bias"):
                params[name] = torch.zeros(full, dtype=dtype, device=where)
            else:
                fan_in = math.prod(full[2:]) if len(shape) > 2 else full[1]
                drawn = torch.rand(full, generator=generator, device=where, dtype=dtype)
                params[name] = (2 * drawn - 1) / math.sqrt(fan_in)
        return params

    @abstractmethod
    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Outputs (B, n, outputs) for inputs (B, n, …)."""

    @abstractmethod
    def cross_entropy(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of each task, (B,), for inputs (B, n, …) and labels (B, n)."""

    @abstractmethod
    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        """See :class:`lft.kernels.autograd.NetworkKernel`; None where no kernel applies."""

    @abstractmethod
    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params] | None:
        """See :class:`lft.kernels.autograd.NetworkKernel`; None where no kernel applies."""

    def _in_order(self, params: Params) -> Params:
        """Parameters in the order of ``init``; a file returns them in alphabetical order."""
        return {name: params[name] for name in self.shapes}

    def _has_kernel(self, x: Tensor) -> bool:
        return native.chosen(self.kernel, x.device, x.dtype)


class NetworkFamily(TaskFamily, Differentiated):
    """Tasks whose optimizee is a network.

    Attributes:
        network: the network.
        device: of tasks and parameters.
    """

    network: Network
    device: torch.device | str

    def init(self, n_tasks: int, generator: Generator) -> Params:
        """See :meth:`Network.init`."""
        params = self.network.init(n_tasks, generator, self.dtype)
        return {name: leaf.to(self.device) for name, leaf in params.items()}

    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        """See :class:`lft.tasks.base.Differentiated`."""
        return self.network.loss_and_gradients(params, batch)

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params] | None:
        """See :class:`lft.tasks.base.Differentiated`."""
        return self.network.descend(params, tasks, steps, step_size)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of each task, (B,), for logits (B, n, classes) and labels (B, n)."""
    losses = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    return losses.view(y.shape).mean(1)


class MLP(Network):
    """Fully connected network; each layer is one batched matrix product over the tasks.

    Args:
        widths: input, hidden and output widths.
        kernel: ``torch`` for plain PyTorch, otherwise :mod:`lft.kernels.mlp` where it applies.
        activation: of the hidden layers; only ReLU has a native kernel.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        kernel: Kernel = "auto",
        activation: Literal["relu", "tanh"] = "relu",
    ) -> None:
        super().__init__(
            shapes.mlp(widths), len(widths) - 1, kernel if activation == "relu" else "torch"
        )
        self.activation = torch.relu if activation == "relu" else torch.tanh

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        x = x.flatten(2)
        for layer in range(self.layers):
            x = torch.baddbmm(params[f"b{layer}"], x, params[f"w{layer}"])
            if layer < self.layers - 1:
                x = self.activation(x)
        return x

    def cross_entropy(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """See :meth:`Network.cross_entropy`."""

        def plain(leaves: Params) -> Tensor:
            return cross_entropy(self(leaves, x), y)

        if self._has_kernel(x) and torch.is_grad_enabled():
            return mlp.loss(self._in_order(params), x.flatten(2), y, plain)
        return plain(params)

    def squared_error(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """Mean squared error of each task, (B,), for targets (B, n, outputs)."""

        def plain(leaves: Params) -> Tensor:
            squares = functional.mse_loss(self(leaves, x), y, reduction="none")
            return squares.mean(dim=(1, 2))

        if self._has_kernel(x) and torch.is_grad_enabled():
            return mlp.loss(self._in_order(params), x.flatten(2), y, plain)
        return plain(params)

    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        """See :meth:`Network.loss_and_gradients`."""
        if not self._has_kernel(batch.x):
            return None
        return mlp.loss_and_gradients(self._in_order(params), Batch(batch.x.flatten(2), batch.y))

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params] | None:
        """See :meth:`Network.descend`."""
        if not self._has_kernel(tasks.support.x):
            return None
        flat = TaskBatch(*(Batch(part.x.flatten(2), part.y) for part in tasks))
        return mlp.descend(self._in_order(params), flat, steps, step_size)


def grouped_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3×3 convolution of stride 2 with per-task weights, as one grouped convolution.

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
    """Same as :func:`grouped_convolution`, as one batched product with all 3×3 patches.

    Grouped convolutions on a GPU launch a kernel per group and are many times slower.
    """
    patches = functional.pad(x, (1, 1, 1, 1)).unfold(3, 3, 2).unfold(4, 3, 2)
    n_images, _, _, height, width = patches.shape[:5]
    columns = patches.permute(1, 2, 5, 6, 0, 3, 4).flatten(4).flatten(1, 3)
    y = torch.baddbmm(bias[..., None], weight.flatten(2), columns)
    return y.view(*y.shape[:2], n_images, height, width).movedim(2, 0)


def normalised(x: Tensor, bias: Tensor) -> Tensor:
    """Batch normalisation of each task's channels over its own images, then a bias.

    The statistics are those of the set at hand, also at test time, as in MAML. A scale would be
    redundant: after ReLU the next layer's weights can absorb it, if it is positive.

    Args:
        x: (n, B, C, H, W).
        bias: (B, C).
    """
    variance, mean = torch.var_mean(x, dim=(0, 3, 4), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() + bias[..., None, None]


class CNN(Network):
    """3×3 convolutions of stride 2 with ReLU, then a linear layer.

    Args:
        shape: channels, height and width of the images.
        channels: output channels of each convolution.
        outputs: width of the linear layer.
        kernel: ``torch`` for plain PyTorch, otherwise :mod:`lft.kernels.cnn` where it applies.
        normalise: whether to normalise the channels; see :func:`normalised`. It has no native
            kernel.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: tuple[int, ...],
        outputs: int,
        kernel: Kernel = "auto",
        normalise: bool = False,
    ) -> None:
        super().__init__(
            shapes.cnn(shape, channels, outputs), len(channels), "torch" if normalise else kernel
        )
        self.normalise = normalise

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        if self._has_kernel(x) and not torch.is_grad_enabled():
            return cnn.logits(self._in_order(params), x)
        return self._plain(params, x)

    def cross_entropy(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """See :meth:`Network.cross_entropy`."""
        if self._has_kernel(x) and torch.is_grad_enabled():
            return cnn.cross_entropy(
                self._in_order(params),
                x,
                y,
                lambda leaves: cross_entropy(self._plain(leaves, x), y),
            )
        return cross_entropy(self(params, x), y)

    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        """See :meth:`Network.loss_and_gradients`."""
        if not self._has_kernel(batch.x):
            return None
        return cnn.loss_and_gradients(self._in_order(params), batch)

    def descend(
        self, params: Params, tasks: TaskBatch, steps: int, step_size: float
    ) -> tuple[Tensor, Params, Params] | None:
        """See :meth:`Network.descend`."""
        if not self._has_kernel(tasks.support.x):
            return None
        return cnn.descend(self._in_order(params), tasks, steps, step_size)

    def _plain(self, params: Params, x: Tensor) -> Tensor:
        convolve = grouped_convolution if x.device.type == "cpu" else unfolded_convolution
        x = x.transpose(0, 1)
        for layer in range(self.layers):
            weight, bias = params[f"conv{layer}"], params[f"bias{layer}"]
            if self.normalise:
                x = normalised(convolve(x, weight, torch.zeros_like(bias)), bias).relu()
            else:
                x = convolve(x, weight, bias).relu()
        x = x.flatten(2).transpose(0, 1)
        return torch.baddbmm(params["head_bias"], x, params["head"])
