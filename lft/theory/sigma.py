"""σ of assumption A2 (Theorem 1): the spread of per-example gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from lft.meta.gradients import value_and_grad
from lft.tasks.base import TaskFamily
from lft.theory.trajectory import Trajectory, by_task
from lft.types import Batch, Params


def deviations(family: TaskFamily, path: Trajectory, held: Batch) -> Tensor:
    """Compute σ up to each step: the largest :func:`deviation` at θ⁽⁰⁾ … θ⁽ᵏ⁾.

    A2 needs one σ for the whole trajectory. The last point alone does not give it, because the loss
    may be flat there. The hinge of eq. 12 is flat, for example, once every image is fooled.

    Args:
        family: defines the loss.
        path: trajectories of B tasks.
        held: examples that neither the trajectory nor the gap has seen, (B, n, …).

    Returns:
        σ for k = 0 … K, (K + 1, B).
    """
    everywhere = [deviation(family, point, held) for point in path.points]
    return torch.stack(everywhere).cummax(0).values.cpu()


def deviation(family: TaskFamily, params: Params, batch: Batch) -> Tensor:
    """Estimate √(E‖∇f(θ; x) − ∇f(θ)‖²) of A2 by √(Σ_i ‖∇f(θ; x_i) − mean‖² / (n − 1)).

    Args:
        family: defines the loss.
        params: θ, each (B, …).
        batch: n examples per task, (B, n, …).

    Returns:
        The estimate for each task, (B,).
    """
    n = batch.size
    each = Batch(*(leaf.flatten(0, 1)[:, None] for leaf in batch))
    copies = {name: leaf.repeat_interleave(n, 0) for name, leaf in params.items()}
    grads: Tensor = by_task(value_and_grad(family, copies, each)[1]).unflatten(0, (-1, n))
    return grads.var(1).sum(1).sqrt()
