"""The right-hand side of Theorem 1, G σ Σ_k w_k (1/√|D_tr| + 1/√|D_val|).

Our copy of the paper lost the formula; this is our reading.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lft.meta.learner import Learner
from lft.theory.trajectory import in_order, pull_back, updates
from lft.types import Params

POWER_ITERATIONS = 2
"""Two are enough for 0.1 %, because one singular value of ∂θ⁽ᵏ⁾/∂φ far exceeds the others."""

SHIFT = 1e-3
"""Relative change of φ in central differences."""


def rate(support: int, query: int) -> float:
    """Return 1/√|D_tr| + 1/√|D_val|.

    Args:
        support: |D_tr|, in examples.
        query: |D_val|, in examples.
    """
    return float(support**-0.5 + query**-0.5)


def jacobian_norms(learner: Learner, meta: Params, inputs: Tensor, random: Generator) -> Tensor:
    """Estimate G of assumption A3: the largest ‖∂θ⁽ᵏ⁾/∂φ‖₂ over k = 1 … K, by power iteration.

    The products J v are central differences and only steer the iteration. The result is ‖Jᵀu‖ for
    a unit vector u, so it never exceeds the norm.

    Args:
        learner: method and settings.
        meta: meta-parameters φ.
        inputs: gradients fed to the fine-tuner, (K, B, P).
        random: draws the initial vectors.

    Returns:
        G of each task, (B,).
    """
    return torch.stack([_norm(learner, meta, one, random) for one in inputs.unbind(1)]).cpu()


def _norm(learner: Learner, meta: Params, inputs: Tensor, random: Generator) -> Tensor:
    size = in_order(meta, meta).norm()
    cotangents = torch.zeros_like(inputs)
    cotangents[-1] = torch.randn(inputs.shape[1], generator=random).to(inputs)
    for _ in range(POWER_ITERATIONS):
        row = pull_back(learner, meta, inputs, cotangents)
        shift = SHIFT * size / in_order(row, meta).norm()
        ahead, behind = (
            updates(learner, {name: meta[name] + move * row[name] for name in meta}, inputs)
            for move in (shift, -shift)
        )
        products = (ahead - behind).cumsum(0)
        k = int(products.norm(dim=1).argmax())
        cotangents = torch.zeros_like(inputs)
        cotangents[k] = products[k] / products[k].norm()
    norm: Tensor = in_order(pull_back(learner, meta, inputs, cotangents), meta).norm()
    return norm
