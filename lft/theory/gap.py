"""The left-hand side of Theorem 1: the gap between the meta-gradients of LFT and L2O.

For one task, a trajectory θ⁽¹⁾ … θ⁽ᴷ⁾ fine-tuned on D_tr, and any data X, let
∇_φ(X) = Σ_k w_k G_kᵀ ∇f(θ⁽ᵏ⁾; X). LFT's meta-gradient is ∇_φ(D_val), L2O's is ∇_φ(D_tr), and the
gap is d = ∇_φ(D_val) − ∇_φ(D_tr). It has two parts:

- variance part: ‖∇_φ(D_val) − ∇_φ(D_new)‖, where θ⁽ᵏ⁾ was not fitted on D_new. This is the gap that
  the proof of Theorem 1 speaks of, under assumption A1.
- fitting part: ‖E d‖ over the draws. It is 0 if θ⁽ᵏ⁾ and G_k do not depend on D_tr, and is there
  because they do. For two draws E⟨d, d'⟩ = ‖E d‖², which estimates its square without bias.

Assumption A1 itself is looked at by products of gradients: ⟨∇f(θ⁽ᵏ⁾; X), ∇f(θ⁽ᵏ⁾; D_val)⟩ is on
average ‖∇f(θ⁽ᵏ⁾)‖² for X = D_new, and for X = D_tr as well where A1 holds.
"""

from __future__ import annotations

from torch import Tensor


def parts(gap: Tensor, variance: Tensor, n_draws: int) -> dict[str, Tensor]:
    """Norms from the vectors of every draw.

    Args:
        gap: d = ∇_φ(D_val) − ∇_φ(D_tr), (T · R, |φ|).
        variance: ∇_φ(D_val) − ∇_φ(D_new), (T · R, |φ|).

    Returns:
        Means over the draws of each task, (T,): ``gap`` and ``variance_part`` of the norms, and
        ``fitting_square`` of ⟨d, d'⟩ over pairs of draws, which estimates ‖E d‖² without bias and
        may be negative.
    """
    of_task = gap.unflatten(0, (-1, n_draws))
    squares = of_task.square().sum(2)
    products = of_task.sum(1).square().sum(1) - squares.sum(1)
    return {
        "gap": squares.sqrt().mean(1),
        "variance_part": mean_norm(variance, n_draws),
        "fitting_square": products / (n_draws * (n_draws - 1)),
    }


def products(on_tr: Tensor, on_new: Tensor, on_val: Tensor, n_draws: int) -> dict[str, Tensor]:
    """Products of gradients with those on D_val, which come weighted, each (K, T · R, P).

    Returns:
        Means over the draws of each task, (T,): ``gradient_square`` of Σ_k w_k ⟨∇f(θ⁽ᵏ⁾; D_new),
        ∇f(θ⁽ᵏ⁾; D_val)⟩, ``gradient_kept`` of the same with D_tr.
    """
    by_draw = {
        "gradient_square": (on_new * on_val).sum((0, 2)),
        "gradient_kept": (on_tr * on_val).sum((0, 2)),
    }
    return {name: over_draws(found, n_draws).cpu() for name, found in by_draw.items()}


def mean_norm(vectors: Tensor, n_draws: int) -> Tensor:
    """Mean over draws of the norms of (T · R, |φ|) vectors, (T,)."""
    return over_draws(vectors.norm(dim=1), n_draws)


def over_draws(values: Tensor, n_draws: int) -> Tensor:
    """Means over the draws of each task, (T,), from (T · R,)."""
    return values.view(-1, n_draws).mean(1)
