"""What the tests of Theorem 1's measurement share: small families, a φ, plain computations."""

from __future__ import annotations

from typing import Any

import torch
from closed_forms import LeastSquares
from tiny import experiment_settings, tiny_images
from torch import Tensor

from lft.config import ClassificationFamily, GapSettings, SineFamily
from lft.meta.learner import Learner
from lft.methods import METHODS
from lft.seeding import generator
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.types import Batch, Params

N_TASKS, N_DRAWS = 2, 3


def settings(**changes: Any) -> GapSettings:
    values: dict[str, Any] = {
        "experiments": (),
        "sizes": (2, 4),
        "fixed_size": 3,
        "steps": (1, 5),
        "tasks": N_TASKS,
        "draws": N_DRAWS,
        "sigma_size": 3,
    }
    return GapSettings(**(values | changes))


def learner() -> Learner:
    return Learner(METHODS["lft"], experiment_settings("sine"), "first", "torch")


def sine() -> Sine:
    return Sine(SineFamily(support=1, query=1, hidden=(4,))).double()


def classification() -> Classification:
    images = tiny_images(1, 12, 60)
    family = ClassificationFamily(source="x", net="mlp", support=1, query=1, widths=(4,))
    return Classification(family, images, Pools(images, "disjoint", 0.2)).double()


def phi(rule: Learner) -> Params:
    """φ away from its initial output layer, a tenth of the others."""
    meta = rule.initial(sine(), generator("phi"))
    return meta | {"lstm/out.w": meta["lstm/out.w"] * 10}


def deaf(meta: Params) -> Params:
    """A fine-tuner whose every update is 0.1, whatever it is fed.

    A1 holds for it, and of φ only the last bias does anything: ∂θ⁽ᵏ⁾/∂φ has one column that is not
    0, with −0.1 k in every row.
    """
    weights = {name: torch.zeros_like(leaf) for name, leaf in meta.items()}
    return weights | {"lstm/out.b": torch.ones_like(meta["lstm/out.b"])}


def follower(meta: Params) -> Params:
    """A fine-tuner that follows the gradient's sign: gates open, except forgetting."""
    weights = {name: torch.zeros_like(leaf) for name, leaf in meta.items()}
    weights["lstm/layer0.b"][[0, 9]] = 3.0
    weights["lstm/layer0.b"][3] = -3.0
    weights["lstm/layer0.w_ih"][6, 1] = 1.0
    weights["lstm/out.w"][0] = 2.0
    return weights


def least_squares(n_draws: int, size: int = 2) -> tuple[LeastSquares, Params, Batch, Batch, Batch]:
    """The family, θ⁽⁰⁾ = 0, and D_tr, D_new and D_val of many draws of one task."""
    family = LeastSquares(support=2 * size, query=size)
    drawn = family.sample(n_draws, generator("many", size))
    support, fresh = (
        Batch(drawn.support.x[:, part], drawn.support.y[:, part])
        for part in (slice(size), slice(size, None))
    )
    return family, family.params(torch.zeros(n_draws, 3)), support, fresh, drawn.query


def vector(leaves: Params) -> Tensor:
    return torch.cat([leaf.flatten() for leaf in leaves.values()])


def of_task(leaves: Params, task: int) -> Params:
    return {name: leaf[task : task + 1] for name, leaf in leaves.items()}


def of_batch(batch: Batch, task: int, n_classes: int, size: int) -> Batch:
    """One task, the first ``size`` examples of each of its classes, picked by index."""
    per_class = batch.size // n_classes
    chosen = [label * per_class + i for label in range(n_classes) for i in range(size)]
    return Batch(*(leaf[task : task + 1, chosen] for leaf in batch))
