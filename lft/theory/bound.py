"""The right-hand side of Theorem 1, G σ Σ_k w_k (1/√|D_tr| + 1/√|D_val|), as we read the formula,
which the text has lost."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lft.meta.learner import Learner
from lft.theory.trajectory import in_order, pull_back, updates
from lft.types import Params

POWER_ITERATIONS = 2
"""The largest singular value of ∂θ⁽ᵏ⁾/∂φ stands out: two iterations find it to 0.1 %."""

SHIFT = 1e-3
"""Relative change of φ in central differences."""


def rate(support: int, query: int) -> float:
    """1/√|D_tr| + 1/√|D_val|."""
    return float(support**-0.5 + query**-0.5)


def jacobian_norms(learner: Learner, meta: Params, inputs: Tensor, random: Generator) -> Tensor:
    """G of assumption A3 for each task, (B,): the largest ‖∂θ⁽ᵏ⁾/∂φ‖₂ over k = 1 … K.

    By power iteration. The products J v are central differences, which only steer; the value is
    ‖Jᵀu‖ for a unit vector u, so it never exceeds the norm.

    Args:
        inputs: (K, B, P), what the fine-tuner was fed.
        random: draws where the iteration begins.
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
