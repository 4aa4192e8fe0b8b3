"""Types shared by the whole package; tensors have a leading task axis B."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

Params = dict[str, Tensor]
"""Optimizee variables by name, each (B, …); meta-parameters use the same type without B."""

State = Any
"""State of a fine-tuner: h of eq. 3 for the LSTM, moments for Adam, None for SGD."""


class Batch(NamedTuple):
    """Examples of B tasks: ``x`` (B, n, …) and ``y`` (B, n, …)."""

    x: Tensor
    y: Tensor

    @property
    def size(self) -> int:
        """Examples per task, n."""
        return self.x.shape[1]

    def repeat_tasks(self, times: int) -> Batch:
        """Repeat each task ``times`` times in a row: (B · times, n, …)."""
        return Batch(*(leaf.repeat_interleave(times, dim=0) for leaf in self))


class TaskBatch(NamedTuple):
    """B tasks: ``support`` is D^tr, ``query`` is D^val."""

    support: Batch
    query: Batch

    def first(self, n: int) -> TaskBatch:
        """Keep the first n tasks."""
        return TaskBatch(*(Batch(part.x[:n], part.y[:n]) for part in self))

    def joined(self) -> TaskBatch:
        """Join support and query, for both loops of L2O (eq. 10)."""
        both = concatenate(self.support, self.query, dim=1)
        return TaskBatch(both, both)


def concatenate(first: Batch, second: Batch, *, dim: int) -> Batch:
    """Join two batches along tasks (``dim=0``) or along examples (``dim=1``)."""
    return Batch(torch.cat([first.x, second.x], dim), torch.cat([first.y, second.y], dim))


def flatten(params: Params) -> Tensor:
    """Flatten all coordinates of all tasks into one vector (B · P,), task by task."""
    return torch.cat(
        [leaf.reshape(len(leaf), leaf.shape[1:].numel()) for leaf in params.values()], dim=1
    ).flatten()


def unflatten(vector: Tensor, like: Params) -> Params:
    """Invert :func:`flatten`.

    Args:
        vector: (B · P,) for any B.
        like: parameters whose names and shapes, without B, the result takes.

    Returns:
        Views of ``vector`` where possible, each (B, …).
    """
    sizes = [leaf.shape[1:].numel() for leaf in like.values()]
    pieces = torch.split(vector.view(-1, sum(sizes)), sizes, dim=1)
    return {
        name: piece.reshape(len(piece), *leaf.shape[1:])
        for (name, leaf), piece in zip(like.items(), pieces, strict=True)
    }
