"""A fine-tuner as a ``torch.optim.Optimizer``, for any ``torch.nn.Module``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lft.config import ZerothOrderSettings
from lft.errors import UsageError
from lft.finetuners.base import FineTuner
from lft.meta.gradients import ZerothOrder
from lft.seeding import generator
from lft.types import Batch, Params


class LearnedOptimizer(Optimizer):
    """θ ← θ − lr · Δ with (Δ, h) = m(g, h), eq. 3, for every parameter tensor θ.

    Each tensor is fine-tuned on its own with its own state h, which for a coordinate-wise
    fine-tuner is the same as all of them at once. A tensor without a gradient is left alone, as in
    ``torch.optim``. State dicts, parameter groups and learning-rate schedules work as usual.

    >>> import torch
    >>> from lft.finetuners.gradient_descent import SGD
    >>> from lft.optimizer import LearnedOptimizer
    >>> theta = torch.nn.Parameter(torch.tensor([4.0]))
    >>> optimizer = LearnedOptimizer([theta], SGD(0.25))
    >>> (theta**2).sum().backward()
    >>> optimizer.step()
    >>> theta.item()
    2.0

    Args:
        params: parameters, or parameter groups with options of their own.
        tuner: the update rule.
        lr: factor of the update; 1 is what the fine-tuner was trained with. An option of groups.
        zeroth_order: if given, :meth:`step` takes a closure and feeds the fine-tuner the estimate
            of eq. 6, from ``directions`` + 1 values of the loss; no gradient is computed.
        seed: of the directions.

    Raises:
        UsageError: ``lr`` is negative.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        tuner: FineTuner,
        *,
        lr: float = 1.0,
        zeroth_order: ZerothOrderSettings | None = None,
        seed: int = 0,
    ) -> None:
        if lr < 0:
            raise UsageError(f"lr is {lr}; it must not be negative")
        self.tuner = tuner
        self.zeroth_order = zeroth_order
        super().__init__(params, {"lr": lr, "seed": seed, "steps": 0})

    def __getstate__(self) -> dict[str, Any]:
        own = {"tuner": self.tuner, "zeroth_order": self.zeroth_order}
        return {**super().__getstate__(), **own}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One fine-tuning step.

        Args:
            closure: computes the loss again and returns it. First order: it also calls
                ``backward``, and may be left out after a ``backward`` of one's own. Zeroth order:
                it is needed, and must not call ``backward``.

        Returns:
            The closure's loss at the parameters before the step, None without a closure.

        Raises:
            UsageError: zeroth order without a closure, or a gradient is sparse.
        """
        if self.zeroth_order is None:
            with torch.enable_grad():
                loss = closure() if closure else None
        elif closure is None:
            raise UsageError("a zeroth-order fine-tuner needs step(closure) to ask for the loss")
        else:
            loss = self._estimate(closure, self.zeroth_order)
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step(param, group["lr"])
            group["steps"] += 1
        return loss

    def _step(self, param: Tensor, lr: float) -> None:
        """Move one tensor, a single task of the fine-tuner."""
        if param.grad is None or param.grad.is_sparse:
            raise UsageError("a fine-tuner takes dense gradients only")
        task = {"param": param[None]}
        state = self.state[param]
        if "tuner" not in state:
            state["tuner"] = self.tuner.start(task)
        state["tuner"], moved = self.tuner.step(state["tuner"], task, {"param": param.grad[None]})
        param.lerp_(moved["param"][0], lr)

    def _estimate(self, closure: Callable[[], Any], settings: ZerothOrderSettings) -> Tensor:
        """Put the estimate of eq. 6 into the gradients; return the loss at the parameters."""
        group = self.param_groups[0]
        named = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        probe = _Probe(closure, named)
        random = generator("optimizer", group["seed"], group["steps"])
        point = {str(i): param.detach().clone()[None] for i, param in enumerate(named)}
        empty = Batch(torch.empty(1, 0), torch.empty(1, 0))
        try:
            grads = ZerothOrder(settings, random)(probe, point, empty)
        finally:
            probe.move({name: leaf[0] for name, leaf in point.items()})
        for param, grad in zip(named, grads.values(), strict=True):
            param.grad = grad[0]
        return probe.losses[0]


class _Probe:
    """The loss of :class:`lft.meta.gradients.ZerothOrder`: a closure, asked at point after point.

    Attributes:
        losses: at every point of the last call, the unshifted parameters first.
    """

    def __init__(self, closure: Callable[[], Any], named: list[Tensor]) -> None:
        self.closure = closure
        self.named = named
        self.losses = torch.empty(0)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """The closure's loss at every task of ``params``, (B,)."""
        n_points = next(iter(params.values())).shape[0]
        losses = []
        for index in range(n_points):
            self.move({name: leaf[index] for name, leaf in params.items()})
            losses.append(torch.as_tensor(self.closure()).detach())
        self.losses = torch.stack(losses)
        return self.losses

    def move(self, values: Params) -> None:
        """Set the parameters."""
        for param, value in zip(self.named, values.values(), strict=True):
            param.copy_(value)
