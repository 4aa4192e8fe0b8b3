"""Fine-tuner inputs: gradients (first order) or estimates from loss values (zeroth order)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Generator, Tensor

from lft.config import ZerothOrderSettings
from lft.tasks.base import Differentiated, Objective
from lft.types import Batch, Params, flatten, unflatten


class Gradient(Protocol):
    """g(θ) of eq. 3 for B tasks at once."""

    def __call__(self, family: Objective, params: Params, batch: Batch) -> Params:
        """Return g(θ), each (B, …), for θ = ``params`` and data ``batch`` (B, n, …)."""
        ...


def value_and_grad(
    family: Objective, params: Params, batch: Batch, *, create_graph: bool = False
) -> tuple[Tensor, Params]:
    """Compute f and ∇_θ f of each task.

    Args:
        family: defines the loss f.
        params: θ, each (B, …).
        batch: data of each task, (B, n, …).
        create_graph: keep both results differentiable in ``params``; otherwise detach them.

    Returns:
        Losses (B,) and gradients, each (B, …).
    """
    if not create_graph and isinstance(family, Differentiated):
        found = family.loss_and_gradients(params, batch)
        if found is not None:
            return found[0], {name: found[1][name] for name in params}
    with torch.enable_grad():
        params = {
            name: leaf if create_graph and leaf.requires_grad else leaf.detach().requires_grad_()
            for name, leaf in params.items()
        }
        losses = family.loss(params, batch)
        grads = torch.autograd.grad(losses.sum(), list(params.values()), create_graph=create_graph)
    return losses if create_graph else losses.detach(), dict(zip(params, grads, strict=True))


class FirstOrder:
    """g = ∇_θ f(θ; D).

    Args:
        create_graph: keep g differentiable in θ; ∂g/∂θ in eq. 8 is then the Hessian.
    """

    def __init__(self, *, create_graph: bool = False) -> None:
        self.create_graph = create_graph

    def __call__(self, family: Objective, params: Params, batch: Batch) -> Params:
        """See :class:`Gradient`."""
        return value_and_grad(family, params, batch, create_graph=self.create_graph)[1]


class ZerothOrder:
    """ĝ(θ) = (1/(μ q)) Σ_j [f(θ + μ u_j) − f(θ)] u_j with u_j ~ N(0, I) (eq. 6).

    One batched evaluation of B (q + 1) tasks gives all the loss values.

    Args:
        settings: μ, q and whether the tasks of a batch share directions.
        generator: draws new directions at every call, (B, q, P), or (1, q, P) if shared.
        create_graph: keep ĝ differentiable in θ; this takes only first derivatives of f.
    """

    def __init__(
        self, settings: ZerothOrderSettings, generator: Generator, *, create_graph: bool = False
    ) -> None:
        self.settings = settings
        self.generator = generator
        self.create_graph = create_graph

    def __call__(self, family: Objective, params: Params, batch: Batch) -> Params:
        """See :class:`Gradient`."""
        q = self.settings.directions
        with torch.set_grad_enabled(self.create_graph):
            theta = flatten(params).view(len(batch.x), 1, -1)
            directions = self._directions(theta)
            shifted = torch.cat([theta, theta + self.settings.mu * directions], dim=1).flatten(0, 1)
            losses = family.loss(unflatten(shifted, params), batch.repeat_tasks(q + 1))
            values = losses.view(-1, q + 1)
            slopes = (values[:, 1:] - values[:, :1]) / (self.settings.mu * q)
            slopes = slopes.to(directions)  # The loss may have a different dtype from θ.
            return unflatten((slopes[:, None] @ directions).flatten(0, 1), params)

    def _directions(self, theta: Tensor) -> Tensor:
        """Draw (B, q, P) standard normal directions for θ (B, 1, P)."""
        n_tasks, _, coordinates = theta.shape
        n_drawn = 1 if self.settings.shared_directions else n_tasks
        shape = (n_drawn, self.settings.directions, coordinates)
        random = self.generator
        drawn = torch.randn(shape, generator=random, device=random.device, dtype=theta.dtype)
        return drawn.to(theta.device).expand(n_tasks, -1, -1)
