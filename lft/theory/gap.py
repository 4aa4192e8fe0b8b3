"""The left-hand side of Theorem 1: the gap between the meta-gradients of LFT and L2O.

For a task with a trajectory θ⁽¹⁾ … θ⁽ᴷ⁾ fine-tuned on D_tr, and any data X, let
∇_φ(X) = Σ_k w_k G_kᵀ ∇f(θ⁽ᵏ⁾; X). LFT's meta-gradient is ∇_φ(D_val), L2O's is ∇_φ(D_tr), and the
gap is d = ∇_φ(D_val) − ∇_φ(D_tr). It has two parts:

- Variance part: ‖∇_φ(D_val) − ∇_φ(D_new)‖, where θ⁽ᵏ⁾ was not fitted on D_new. The proof of
  Theorem 1, under assumption A1, bounds this gap.
- Fitting part: ‖E d‖ over the draws. It arises because θ⁽ᵏ⁾ and G_k depend on D_tr, and would be 0
  otherwise. For two draws, E⟨d, d'⟩ = ‖E d‖², so ⟨d, d'⟩ is an unbiased estimate of its square.

Products of gradients test assumption A1 itself. The mean of ⟨∇f(θ⁽ᵏ⁾; X), ∇f(θ⁽ᵏ⁾; D_val)⟩ is
‖∇f(θ⁽ᵏ⁾)‖² for X = D_new. If A1 holds, it is the same for X = D_tr.
"""

from __future__ import annotations

from torch import Tensor


def parts(gap: Tensor, variance: Tensor, n_draws: int) -> dict[str, Tensor]:
    """Compute the gap and its two parts from the vectors of all draws.

    Args:
        gap: d = ∇_φ(D_val) − ∇_φ(D_tr), (T · R, |φ|).
        variance: ∇_φ(D_val) − ∇_φ(D_new), (T · R, |φ|).
        n_draws: R.

    Returns:
        Means over the draws of each task, (T,). ``gap`` and ``variance_part`` are mean norms.
        ``fitting_square`` is the mean of ⟨d, d'⟩ over pairs of draws, an unbiased estimate of
        ‖E d‖² that may be negative.
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
    """Multiply gradients on D_new and on D_tr with those on D_val.

    Args:
        on_tr: ∇f(θ⁽ᵏ⁾; D_tr), (K, T · R, P).
        on_new: ∇f(θ⁽ᵏ⁾; D_new), (K, T · R, P).
        on_val: w_k ∇f(θ⁽ᵏ⁾; D_val), (K, T · R, P).
        n_draws: R.

    Returns:
        Means over the draws of each task, (T,). ``gradient_square`` is the mean of
        Σ_k w_k ⟨∇f(θ⁽ᵏ⁾; D_new), ∇f(θ⁽ᵏ⁾; D_val)⟩; ``gradient_kept`` is the same with D_tr.
    """
    by_draw = {
        "gradient_square": (on_new * on_val).sum((0, 2)),
        "gradient_kept": (on_tr * on_val).sum((0, 2)),
    }
    return {name: over_draws(found, n_draws).cpu() for name, found in by_draw.items()}


def mean_norm(vectors: Tensor, n_draws: int) -> Tensor:
    """Average the norms of (T · R, |φ|) vectors over the R draws of each task, (T,)."""
    return over_draws(vectors.norm(dim=1), n_draws)


def over_draws(values: Tensor, n_draws: int) -> Tensor:
    """Average (T · R,) values over the R draws of each task, (T,)."""
    return values.view(-1, n_draws).mean(1)
