"""Torch's modes while a user's network is called: no gradients, and modules in evaluation mode."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def own_modes(*, gradients: bool = False) -> Iterator[None]:
    """Set torch modes whatever the caller has set: no inference mode, no autocast.

    Args:
        gradients: whether operations are recorded for autograd.
    """
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.set_grad_enabled(gradients))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def evaluating(modules: list[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode, and restore the mode of each submodule afterwards."""
    parts = [part for module in modules for part in module.modules()]
    before = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        with own_modes():
            yield
    finally:
        for part, training in zip(parts, before, strict=True):
            part.training = training


def held(value: Any, depth: int = 4) -> list[nn.Module]:
    """Find the modules that a callable uses: itself, or any that its names and attributes reach.

    Args:
        value: the callable.
        depth: how many references to follow.
    """
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()
    reached = [value]
    for _ in range(depth + 1):
        fresh = [each for each in reached if id(each) not in seen]
        seen |= set(map(id, fresh))
        found |= {id(each): each for each in fresh if isinstance(each, nn.Module)}
        reached = [below for each in fresh for below in _leads_to(each)]
    return list(found.values())


def _leads_to(value: Any) -> list[Any]:
    """List the objects that a value refers to, if they may hold a network."""
    if isinstance(value, nn.Module | ModuleType | type | Tensor):
        return []
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        try:
            names = inspect.getclosurevars(value)
        except ValueError:  # A variable of an enclosing function has no value yet.
            return defaults
        return [*defaults, *names.nonlocals.values(), *names.globals.values()]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return list(value)
    call = getattr(type(value), "__call__", None)  # noqa: B004 - we need the function itself
    attributes = [*getattr(value, "__dict__", {}).values(), *_in_slots(value)]
    return [*attributes, call] if isinstance(call, FunctionType) else attributes


def _in_slots(value: Any) -> Iterator[Any]:
    """Yield the attributes that an object keeps in ``__slots__``."""
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if inspect.ismemberdescriptor(member):
                with suppress(AttributeError):  # It has no value yet.
                    yield member.__get__(value)
