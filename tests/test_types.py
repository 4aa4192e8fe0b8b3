"""Shapes with a leading task axis."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lft.types import Batch, TaskBatch, concatenate, flatten, unflatten

shapes = st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=3)


@given(n_tasks=st.integers(1, 3), shapes=shapes)
def test_parameters_lie_task_by_task_and_come_back(n_tasks: int, shapes: list[list[int]]) -> None:
    params = {
        str(index): torch.rand(n_tasks, *shape) for index, shape in enumerate(shapes)
    }  # no shape at all is a scalar for each task
    vector = flatten(params)
    by_hand = [
        value
        for task in range(n_tasks)
        for leaf in params.values()
        for value in leaf[task].flatten().tolist()
    ]
    assert vector.tolist() == by_hand
    restored = unflatten(vector, params)
    assert list(restored) == list(params)
    assert all(torch.equal(restored[name], leaf) for name, leaf in params.items())


def test_batches_are_joined_and_repeated() -> None:
    one = Batch(torch.arange(8).view(2, 2, 2), torch.arange(4).view(2, 2))
    other = Batch(torch.arange(12).view(2, 3, 2), torch.arange(6).view(2, 3))
    assert (one.size, other.size) == (2, 3)
    joined = TaskBatch(one, other).joined()
    assert joined.support is joined.query
    assert joined.support.y.tolist() == [[0, 1, 0, 1, 2], [2, 3, 3, 4, 5]]
    assert joined.support.x.shape == (2, 5, 2)
    assert concatenate(one, one, dim=0).y.tolist() == [[0, 1], [2, 3], [0, 1], [2, 3]]
    assert one.repeat_tasks(2).y.tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
