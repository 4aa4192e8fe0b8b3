"""The coordinate-wise LSTM fine-tuner m_φ of eq. 3 (Andrychowicz et al., 2016).

One small LSTM, with shared weights φ, runs on each coordinate of the optimizee separately, so it
works for parameters of any shape. The coordinates of all tasks lie side by side. The state is
(2, layers, hidden, N) with N = B · P coordinates last, so a step is a few large GEMMs.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from lft.config import LSTMSettings
from lft.kernels import build as native
from lft.kernels import lstm
from lft.kernels.build import Kernel
from lft.types import Params, flatten, unflatten

DIFFERENTIATED = 4_000_000
"""Coordinates × steps in autograd's graph at one time; 3 GB at hidden size 10."""


def preprocess(gradient: Tensor, p: float) -> Tensor:
    """Split a gradient into log-magnitude and sign (Andrychowicz et al., 2016, appendix A).

    Args:
        gradient: (N,).
        p: range of the logarithm; gradients smaller than e⁻ᵖ in magnitude scale linearly.

    Returns:
        (2, N): (log|g| / p, sign g) where |g| ≥ e⁻ᵖ, else (−1, eᵖ g).
    """
    smallest = math.exp(-p)
    large = gradient.abs() >= smallest
    magnitude = torch.where(large, gradient.abs(), smallest).log() / p
    direction = torch.where(large, gradient.sign(), gradient / smallest)
    return torch.stack([magnitude, direction])


def init_weights(settings: LSTMSettings, generator: Generator) -> Params:
    """Draw a random φ, uniform in ±1/√hidden as in ``torch.nn.LSTM``.

    The output weights are a tenth as large and the output bias is zero.

    Args:
        settings: layers and hidden size.
        generator: source of randomness; its device is that of the weights.

    Returns:
        Weights with the names and shapes of :func:`lft.kernels.lstm.shapes`.
    """
    hidden = settings.hidden
    bound: float = hidden**-0.5

    def uniform(*shape: int) -> Tensor:
        drawn = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
        return (2 * drawn - 1) * bound

    shapes = lstm.shapes(settings.layers, hidden)
    weights = {name: uniform(*shape) for name, shape in shapes.items() if name != "out.b"}
    weights["out.w"] /= 10
    weights["out.b"] = torch.zeros((), dtype=torch.float32, device=generator.device)
    return weights


class CoordinateLSTM:
    """m_φ of eq. 3: maps a coordinate's gradient and LSTM state to its update and next state.

    Args:
        weights: φ, with the names and shapes of :func:`lft.kernels.lstm.shapes`.
        settings: sizes, preprocessing and output scale.
        kernel: ``torch`` is the plain differentiable path. ``fused`` is the native one, for float32
            on the CPU without recorded derivatives. ``auto`` uses the native path if available.
    """

    def __init__(self, weights: Params, settings: LSTMSettings, kernel: Kernel = "auto") -> None:
        self.weights = weights
        self.settings = settings
        self.kernel = kernel

    def start(self, params: Params) -> Tensor:
        """Return the zero state (2, layers, hidden, N): h and c of every coordinate."""
        leaf = next(iter(params.values()))
        n_coordinates = sum(tensor.numel() for tensor in params.values())
        return leaf.new_zeros(2, self.settings.layers, self.settings.hidden, n_coordinates)

    def step(self, state: Tensor, params: Params, grads: Params) -> tuple[Tensor, Params]:
        """One step; see :class:`lft.finetuners.base.FineTuner`."""
        return self.advance(state.clone(), params, grads)

    def advance(self, state: Tensor, params: Params, grads: Params) -> tuple[Tensor, Params]:
        """Take one step, θ − Δ of eq. 3; see :class:`lft.finetuners.base.InPlace`."""
        gradient = flatten(grads)
        if self._has_kernel(gradient):
            update = lstm.step_(
                self.weights,
                state,
                gradient,
                p=self.settings.preprocess_p,
                scale=self.settings.output_scale,
            )
        else:
            state, update = self._step(state, preprocess(gradient, self.settings.preprocess_p))
        moved = unflatten(update, params)
        return state, {name: params[name] - moved[name] for name in params}

    def segment_vjp(self, start: Tensor, inputs: Tensor, cotangents: Tensor) -> Params:
        """See :class:`lft.finetuners.base.SegmentVJP`."""
        with torch.no_grad():
            if not self._has_kernel(inputs):
                return self._segment_vjp(start, inputs, cotangents)
            return lstm.segment_vjp(
                self.weights,
                start,
                inputs,
                cotangents,
                p=self.settings.preprocess_p,
                scale=self.settings.output_scale,
            )

    def _has_kernel(self, gradient: Tensor) -> bool:
        if torch.is_grad_enabled():
            return False
        return native.chosen(self.kernel, gradient.device, gradient.dtype)

    def _segment_vjp(self, start: Tensor, inputs: Tensor, cotangents: Tensor) -> Params:
        """Compute the reference path by autograd, over chunks of coordinates to limit memory."""
        leaves = {name: leaf.detach().requires_grad_() for name, leaf in self.weights.items()}
        tuner = CoordinateLSTM(leaves, self.settings, "torch")
        features = preprocess(inputs.flatten(), self.settings.preprocess_p).view(2, *inputs.shape)
        size = max(1, DIFFERENTIATED // len(inputs))
        total = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        parts = (tensor.split(size, dim=-1) for tensor in (start, features, cotangents))
        for state, fed, weights in zip(*parts, strict=True):
            with torch.enable_grad():
                updates = []
                for step in fed.unbind(1):
                    state, update = tuner._step(state, step)
                    updates.append(update)
                sum_of_part = (torch.stack(updates) * weights).sum()
            grads = torch.autograd.grad(sum_of_part, list(leaves.values()))
            total = {name: total[name] + grad for name, grad in zip(leaves, grads, strict=True)}
        return total

    def _step(self, state: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step of the reference path.

        Args:
            state: (2, layers, hidden, N).
            features: preprocessed gradients, (2, N).

        Returns:
            The next state and the update Δ (N,).
        """
        weights = self.weights
        hidden, cell = [], []
        for layer in range(self.settings.layers):
            gates = torch.addmm(
                weights[f"layer{layer}.b"][:, None], weights[f"layer{layer}.w_ih"], features
            )
            gates = torch.addmm(gates, weights[f"layer{layer}.w_hh"], state[0, layer])
            enter, forget, candidate, leave = gates.chunk(4)
            memory = forget.sigmoid() * state[1, layer] + enter.sigmoid() * candidate.tanh()
            features = leave.sigmoid() * memory.tanh()
            hidden.append(features)
            cell.append(memory)
        update = self.settings.output_scale * (weights["out.w"] @ features + weights["out.b"])
        return torch.stack([torch.stack(hidden), torch.stack(cell)]), update
