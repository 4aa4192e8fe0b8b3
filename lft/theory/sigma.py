"""σ of assumption A2 (Theorem 1): how much the gradients of single examples vary."""

from __future__ import annotations

import torch
from torch import Tensor

from lft.meta.gradients import value_and_grad
from lft.tasks.base import TaskFamily
from lft.theory.trajectory import Trajectory, by_task
from lft.types import Batch, Params


def deviations(family: TaskFamily, path: Trajectory, held: Batch) -> Tensor:
    """σ up to every place of the trajectory, (K + 1, B): the largest :func:`deviation` at
    θ⁽⁰⁾ … θ⁽ᵏ⁾.

    A loss may be flat at the end of a trajectory, as the hinge of eq. 12 is where every image is
    fooled; A2 asks for a σ that holds along all of it.

    Args:
        held: examples that neither the trajectory nor the gap has seen.
    """
    everywhere = [deviation(family, point, held) for point in path.points]
    return torch.stack(everywhere).cummax(0).values.cpu()


def deviation(family: TaskFamily, params: Params, batch: Batch) -> Tensor:
    """√(Σ_i ‖∇f(θ; x_i) − mean‖² / (n − 1)) of n examples, (B,), an estimate of A2's
    √(E‖∇f(θ; x) − ∇f(θ)‖²)."""
    n = batch.size
    each = Batch(*(leaf.flatten(0, 1)[:, None] for leaf in batch))
    copies = {name: leaf.repeat_interleave(n, 0) for name, leaf in params.items()}
    grads: Tensor = by_task(value_and_grad(family, copies, each)[1]).unflatten(0, (-1, n))
    return grads.var(1).sum(1).sqrt()
