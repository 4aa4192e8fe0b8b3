"""A fine-tuner as a ``torch.optim.Optimizer``, for any ``torch.nn.Module``."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lft.config import ZerothOrderSettings
from lft.errors import UsageError
from lft.finetuners.base import FineTuner, InPlace
from lft.meta.gradients import ZerothOrder
from lft.seeding import check_seed, generator
from lft.types import Batch, Params, State


class LearnedOptimizer(Optimizer):
    """θ ← θ − lr · Δ with (Δ, h) = m(g, h), eq. 3, for every parameter tensor θ.

    Each tensor is fine-tuned separately, with its own state h. For a coordinate-wise fine-tuner the
    result is the same as for all tensors at once. As in ``torch.optim``, a tensor without a
    gradient does not move and a complex number counts as two real ones. Parameter groups,
    learning-rate schedules and state dicts work as usual. A state dict contains plain dicts, lists
    and tensors.

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
        params: parameters, or parameter groups with options.
        tuner: the update rule.
        lr: factor of the update; fine-tuners are trained with 1. Groups may override it.
        zeroth_order: if given, :meth:`step` needs a closure and feeds the fine-tuner the estimate
            of eq. 6, from ``directions`` + 1 values of the loss. It computes no gradient.
        seed: seed of the directions.

    Raises:
        UsageError: the default ``lr`` or that of a group is negative or not finite, or the seed is
            not a whole number.
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
        _rate(lr)
        check_seed(seed)
        self.tuner = tuner
        self.zeroth_order = zeroth_order
        super().__init__(params, {"lr": lr, "seed": seed, "steps": 0})

    def __getstate__(self) -> dict[str, Any]:
        own = {"tuner": self.tuner, "zeroth_order": self.zeroth_order}
        return {**super().__getstate__(), **own}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; see ``torch.optim.Optimizer``.

        Raises:
            UsageError: the group's ``lr`` is negative or not finite.
        """
        if isinstance(param_group, dict):
            _rate(param_group.get("lr", self.defaults["lr"]))
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one fine-tuning step.

        Args:
            closure: recomputes and returns the loss. First order: it also calls ``backward``, and
                is optional if the gradients already exist. Zeroth order: it is required and must
                not call ``backward``. A step calls it ``directions`` + 1 times on the same
                minibatch, so choose the minibatch before the step. All calls start from the same
                state of torch's random numbers and so share one dropout mask. Running statistics
                (batch normalisation) change at every call; to avoid that, put such layers into
                evaluation mode.

        Returns:
            The closure's loss at the parameters before the step; None without a closure.

        Raises:
            UsageError: the order is zeroth and the closure is missing or does not return one
                number, a gradient is sparse, or a learning rate is negative or not finite.
        """
        with torch.inference_mode(False), torch.no_grad():
            if self.zeroth_order is None:
                with torch.enable_grad():
                    loss = closure() if closure else None
            elif closure is None:
                raise UsageError("a zeroth-order fine-tuner needs step(closure) to evaluate losses")
            else:
                loss = self._estimate(closure, self.zeroth_order)
            for group in self.param_groups:
                lr = _rate(group["lr"])
                for param in group["params"]:
                    if param.grad is not None and param.numel():
                        self._step(param, lr)
                group["steps"] += 1
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the state dict; ``torch.load`` reads it with ``weights_only=True``."""
        found: dict[str, Any] = super().state_dict()
        state = {index: {name: _plain(value) for name, value in own.items()}
                 for index, own in found["state"].items()}  # fmt: skip
        return {**found, "state": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a state dict, copying its tensors; see ``torch.optim.Optimizer``.

        Raises:
            UsageError: the state dict belongs to other parameters, another fine-tuner or another
                optimizer. Nothing changes in that case.
        """
        groups, state = _parts(state_dict)
        sizes = [len(group["params"]) for group in groups]
        if sizes != [len(group["params"]) for group in self.param_groups]:
            raise UsageError(
                f"the state dict has parameter groups of {_listed(sizes)} tensors; load it into an "
                "optimizer of the same parameters"
            )
        saved = [index for group in groups for index in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        restored = {
            param: self._restored(param, state[index], number)
            for number, (param, index) in enumerate(zip(params, saved, strict=True))
            if index in state
        }
        super().load_state_dict({**state_dict, "state": {}})
        self.state.update(restored)

    def _restored(self, param: Tensor, saved: Any, number: int) -> State:
        """Convert the saved state of a parameter to the form of a fresh one."""
        try:
            return _in_the_form_of({"tuner": self.tuner.start(_task(param))}, saved)
        except ValueError as error:
            raise UsageError(
                f"the state of parameter {number} is not this fine-tuner's ({error}); build the "
                "optimizer with the fine-tuner and the parameters that the state dict belongs to"
            ) from None

    def _step(self, param: Tensor, lr: float) -> None:
        """Move one tensor, as a single task of the fine-tuner."""
        if param.grad is None or param.grad.is_sparse:
            raise UsageError(
                "a fine-tuner takes dense gradients only; build layers with sparse=False"
            )
        task, state = _task(param), self.state[param]
        if "tuner" not in state:
            state["tuner"] = self.tuner.start(task)
        step = self.tuner.advance if isinstance(self.tuner, InPlace) else self.tuner.step
        state["tuner"], moved = step(state["tuner"], task, _task(param.grad))
        task["param"].lerp_(moved["param"], lr)

    def _estimate(self, closure: Callable[[], Any], settings: ZerothOrderSettings) -> Any:
        """Store the estimate of eq. 6 in the gradients; return the loss at the parameters."""
        group = self.param_groups[0]
        moving = [
            param
            for group in self.param_groups
            for param in group["params"]
            if param.requires_grad and param.numel()
        ]
        probe = _Probe(closure, moving)
        if not moving:
            return probe.ask()
        dtypes = (_real(param).dtype for param in moving)
        together = {  # One estimate covers all tensors: one device, and a dtype that fits them all.
            "device": moving[0].device,
            "dtype": functools.reduce(torch.promote_types, dtypes, torch.float32),
        }
        point = {
            str(i): _real(param).detach().clone()[None].to(**together)
            for i, param in enumerate(moving)
        }
        nothing = torch.empty(1, 0, device="cpu")
        random = generator("optimizer", group["seed"], group["steps"])
        try:
            grads = ZerothOrder(settings, random)(probe, point, Batch(nothing, nothing))
        finally:
            probe.move({name: leaf[0] for name, leaf in point.items()})
        for param, grad in zip(moving, grads.values(), strict=True):
            param.grad = torch.empty_like(param)
            _real(param.grad).copy_(grad[0])
        return probe.answer


class _Probe:
    """The objective for :class:`lft.meta.gradients.ZerothOrder`: calls a closure at each point.

    Attributes:
        answer: the closure's loss at the first point, the unshifted parameters.
    """

    def __init__(self, closure: Callable[[], Any], moving: list[Tensor]) -> None:
        self.closure = closure
        self.moving = moving
        self.answer: Any = None

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Return the closure's loss at each of B points, (B,).

        All calls start from the same random state, which advances once.

        Args:
            params: the points, each (B, …).
            batch: ignored; the closure has the data.
        """
        n_points = next(iter(params.values())).shape[0]
        losses = []
        devices = {p.device.index for p in self.moving if p.device.type == "cuda"}
        for index in range(n_points):
            self.move({name: leaf[index] for name, leaf in params.items()})
            last = index == n_points - 1
            with torch.random.fork_rng(sorted(devices), enabled=not last):
                answer = self.ask()
            if index == 0:
                self.answer = answer
            losses.append(torch.as_tensor(answer, dtype=torch.float64, device="cpu"))
        return torch.stack(losses)

    def ask(self) -> Any:
        """Return the closure's loss without its graph.

        Raises:
            UsageError: the loss is not one real number.
        """
        answer = self.closure()
        if isinstance(answer, Tensor) and answer.numel() == 1 and not answer.is_complex():
            return answer.detach().squeeze()
        if isinstance(answer, int | float):
            return answer
        raise UsageError(
            f"the closure must return the loss, one number, not {type(answer).__name__}"
            + (f" of {answer.numel()}" if isinstance(answer, Tensor) else "")
        )

    def move(self, values: Params) -> None:
        """Set the parameters to ``values``."""
        for param, value in zip(self.moving, values.values(), strict=True):
            _real(param).copy_(value)


def _real(tensor: Tensor) -> Tensor:
    """View a complex tensor as real, with a last axis of size 2; return others unchanged."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _task(tensor: Tensor) -> Params:
    """Wrap a tensor as the only task of a fine-tuner."""
    return {"param": _real(tensor)[None]}


def _rate(lr: Any) -> float:
    """Convert a learning rate to a float.

    Raises:
        UsageError: the rate is not a number, negative or not finite.
    """
    try:
        rate = float(lr)
    except (TypeError, ValueError, RuntimeError):
        rate = math.nan
    if not (math.isfinite(rate) and rate >= 0):
        shown = " ".join(repr(lr).split())
        raise UsageError(f"lr is {shown}; it must be a finite number, 0 or more")
    return rate


def _parts(state_dict: Any) -> tuple[list[dict[str, Any]], dict[int, Any]]:
    """Return the parameter groups and states of a state dict.

    Raises:
        UsageError: the argument is not a state dict, or lacks options of this optimizer.
    """
    found = state_dict if isinstance(state_dict, dict) else {}
    groups, state = found.get("param_groups"), found.get("state")
    kinds = {"params": list, "seed": int, "steps": int}
    if (
        not isinstance(state, dict)
        or not isinstance(groups, list)
        or not all(
            isinstance(group, dict)
            and "lr" in group
            and all(isinstance(group.get(key), kind) for key, kind in kinds.items())
            and all(isinstance(index, int) for index in group["params"])
            for group in groups
        )
    ):
        raise UsageError(
            "this is not the state dict of a learned optimizer; load one that state_dict() returned"
        )
    for group in groups:
        _rate(group["lr"])
    return groups, state


def _plain(state: State) -> Any:
    """Convert tuples in a fine-tuner's state to lists."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_plain(value) for value in state]
    return state


def _in_the_form_of(fresh: State, saved: Any) -> State:
    """Copy a state from :func:`_plain` into the types and devices of a fresh state.

    Raises:
        ValueError: the two have different forms.
    """
    if isinstance(fresh, Tensor):
        if not isinstance(saved, Tensor):
            raise ValueError(f"{type(saved).__name__} instead of a tensor")
        if (saved.shape, saved.dtype) != (fresh.shape, fresh.dtype):
            raise ValueError(
                f"{saved.dtype} of {tuple(saved.shape)} for {fresh.dtype} of {tuple(fresh.shape)}"
            )
        return saved.detach().to(fresh.device, copy=True)
    if isinstance(fresh, dict):
        if not isinstance(saved, dict) or saved.keys() != fresh.keys():
            raise ValueError("different keys")
        return {key: _in_the_form_of(value, saved[key]) for key, value in fresh.items()}
    if isinstance(fresh, list | tuple):
        if not isinstance(saved, list | tuple) or len(saved) != len(fresh):
            raise ValueError("different length")
        values = [_in_the_form_of(value, saved[i]) for i, value in enumerate(fresh)]
        named = hasattr(fresh, "_fields")
        return type(fresh)(*values) if named else type(fresh)(values)
    if type(saved) is not type(fresh):
        raise ValueError(f"{type(saved).__name__} for {type(fresh).__name__}")
    return saved


def _listed(sizes: list[int]) -> str:
    return " and ".join(map(str, sizes)) or "no"
