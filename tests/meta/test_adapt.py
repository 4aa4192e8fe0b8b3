"""The inner loop against torch.optim, and the properties that batching over tasks must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

import pytest
import torch
from closed_forms import LeastSquares
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_images
from torch import Tensor

from lft.config import (
    AttackFamily,
    ClassificationFamily,
    LSTMSettings,
    SineFamily,
    ZerothOrderSettings,
)
from lft.finetuners.base import FineTuner
from lft.finetuners.gradient_descent import SGD, Adam
from lft.finetuners.lstm import CoordinateLSTM, init_weights
from lft.kernels.build import Kernel
from lft.meta import adapt as module
from lft.meta.adapt import Point, adapt, parts
from lft.meta.gradients import FirstOrder, ZerothOrder
from lft.seeding import generator
from lft.tasks.attack import Attack
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.tasks.victim import LeNet5
from lft.types import Batch, Params

LSTM = LSTMSettings(hidden=4)


def lstm(dtype: torch.dtype = torch.float32) -> CoordinateLSTM:
    weights = init_weights(LSTM, generator("phi"))
    return CoordinateLSTM({k: v.to(dtype) for k, v in weights.items()}, LSTM, "torch")


def sine(hidden: tuple[int, ...] = (5, 4), support: int = 6, query: int = 3) -> Sine:
    return Sine(SineFamily(support=support, query=query, hidden=hidden))


@overload
def single(tensors: Params, task: int) -> Params: ...
@overload
def single(tensors: Batch, task: int) -> Batch: ...
def single(tensors: Params | Batch, task: int) -> Params | Batch:
    """One task of a batch, its axis kept."""
    if isinstance(tensors, Batch):
        return Batch(*(leaf[task : task + 1] for leaf in tensors))
    return {name: leaf[task : task + 1] for name, leaf in tensors.items()}


@pytest.mark.parametrize(
    ("tuner", "optimizer"),
    [
        (SGD(0.05), lambda leaves: torch.optim.SGD(leaves, lr=0.05)),
        (Adam(0.05), lambda leaves: torch.optim.Adam(leaves, lr=0.05)),
    ],
)
@pytest.mark.usefixtures("float64")
def test_inner_steps_match_torch_optim(
    tuner: FineTuner, optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    family = sine()
    tasks = family.sample(3, generator("tasks"))
    start = family.init(3, generator("start"))
    points = list(adapt(family, tuner, start, tasks.support, steps=7, gradient=FirstOrder()))
    assert len(points) == 7
    for task in range(3):
        params = {k: v.clone().requires_grad_() for k, v in single(start, task).items()}
        inner = optimizer(list(params.values()))
        for point in points:
            inner.zero_grad()
            family.loss(params, single(tasks.support, task)).sum().backward()
            inner.step()
            for name, leaf in params.items():
                # float64; batched and single matrix products sum in different orders.
                torch.testing.assert_close(
                    point.params[name][task], leaf.detach()[0], rtol=1e-9, atol=1e-12
                )


@given(
    n_tasks=st.integers(1, 4),
    steps=st.integers(1, 4),
    support=st.integers(1, 5),
    hidden=st.lists(st.integers(1, 5), max_size=2).map(tuple),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    kind=st.sampled_from(["sgd", "adam", "lstm"]),
)
def test_a_batch_of_tasks_is_as_many_batches_of_one(
    n_tasks: int, steps: int, support: int, hidden: tuple[int, ...], dtype: torch.dtype, kind: str
) -> None:
    tuner: FineTuner = {"sgd": SGD(0.05), "adam": Adam(0.05), "lstm": lstm(dtype)}[kind]
    family = sine(hidden, support)
    drawn = family.sample(n_tasks, generator("tasks")).support
    batch = Batch(drawn.x.to(dtype), drawn.y.to(dtype))
    start = {k: v.to(dtype) for k, v in family.init(n_tasks, generator("start")).items()}
    *_, together = adapt(family, tuner, start, batch, steps=steps, gradient=FirstOrder())
    for task in range(n_tasks):
        *_, alone = adapt(
            family,
            tuner,
            single(start, task),
            single(batch, task),
            steps=steps,
            gradient=FirstOrder(),
        )
        for name, leaf in alone.params.items():
            assert leaf.dtype == dtype
            # A few hundred roundings of sums in another order; Adam's g / |g| and the LSTM's sign
            # turn a float32 gradient that is nothing but rounding into a step, hence 2e-3.
            single_precision = 1e-5 if kind == "sgd" else 2e-3
            tolerance = 1e-9 if dtype == torch.float64 else single_precision
            torch.testing.assert_close(
                together.params[name][task], leaf[0], rtol=tolerance, atol=tolerance
            )


IMAGES = tiny_images(1, 28)


def image_tasks(kind: str, classes: int, support: int) -> Classification | Attack:
    pools = Pools(IMAGES, "disjoint", 0.2)
    if kind == "attack":
        victim = LeNet5((1, 28, 28), 3).double().requires_grad_(False)
        settings = AttackFamily(source="x", classes=classes, support=support, query=1)
        return Attack(settings, victim, pools)
    net: Literal["mlp", "cnn"] = "cnn" if kind == "cnn" else "mlp"
    widths = (3, 2) if net == "cnn" else (4,)
    sizes = {"ways": max(2, classes), "support": support, "query": 1}
    return Classification(
        ClassificationFamily(source="x", net=net, widths=widths, **sizes), IMAGES, pools
    )


@pytest.mark.usefixtures("float64")
@settings(max_examples=15)
@given(
    kind=st.sampled_from(["mlp", "cnn", "attack"]),
    order=st.sampled_from(["first", "zeroth"]),
    n_tasks=st.integers(1, 3),
    steps=st.integers(1, 3),
    classes=st.integers(1, 3),
    support=st.integers(1, 3),
)
def test_image_tasks_side_by_side_are_as_many_alone(
    kind: str, order: str, n_tasks: int, steps: int, classes: int, support: int
) -> None:
    family = image_tasks(kind, classes, support)
    batch = family.sample(n_tasks, generator("tasks"), "train").support
    start = family.init(n_tasks, generator("start"))

    def end(start: Params, batch: Batch) -> Params:
        # With directions of its own a task alone would draw others than among its like.
        shared = ZerothOrderSettings(mu=0.1, directions=2, shared_directions=True)
        gradient = FirstOrder() if order == "first" else ZerothOrder(shared, generator("u"))
        rule = lstm(torch.float64)
        *_, last = adapt(family, rule, start, batch, steps=steps, gradient=gradient)
        return last.params

    together = end(start, batch)
    for task in range(n_tasks):
        for name, leaf in end(single(start, task), single(batch, task)).items():
            # float64; sums in another order, over 1/μ, and the LSTM's log|g| of a small g.
            torch.testing.assert_close(together[name][task], leaf[0], rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tuner", [SGD(0.1), Adam(0.1), "lstm"])
def test_going_on_from_a_point_is_one_trajectory(tuner: FineTuner | str) -> None:
    rule = lstm(torch.float64) if isinstance(tuner, str) else tuner
    family = LeastSquares()
    support = family.sample(2, generator("tasks")).support
    start = family.init(2, generator("start"))
    whole = list(adapt(family, rule, start, support, steps=6, gradient=FirstOrder()))
    first = list(adapt(family, rule, start, support, steps=4, gradient=FirstOrder()))
    rest = list(adapt(family, rule, first[-1], support, steps=2, gradient=FirstOrder()))
    for one, other in zip(whole, first + rest, strict=True):
        # The same operations on the same numbers: equal to the last bit.
        assert all(torch.equal(one.params[name], other.params[name]) for name in start)


@pytest.mark.parametrize("kernel", ["auto", "torch"])
def test_steps_in_place_are_pure_ones_and_leave_the_start(kernel: Kernel) -> None:
    family, tuner = sine(), CoordinateLSTM(init_weights(LSTM, generator("phi")), LSTM, kernel)
    tasks, params = family.sample(2, generator("tasks")), family.init(2, generator("start"))
    gradient = FirstOrder()
    with torch.no_grad():
        state = tuner.start(params)
        for _ in range(2):
            state, params = tuner.step(state, params, gradient(family, params, tasks.support))
        before = state.clone()
        start = Point(params, state)
        *_, end = adapt(family, tuner, start, tasks.support, steps=3, gradient=gradient)
        assert torch.equal(state, before)
        for _ in range(3):
            state, params = tuner.step(state, params, gradient(family, params, tasks.support))
    assert torch.equal(end.state, state)
    assert all(torch.equal(end.params[name], leaf) for name, leaf in params.items())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("zeroth", [True, False])
def test_the_start_is_left_unchanged_and_nothing_is_recorded_without_a_graph(zeroth: bool) -> None:
    family = LeastSquares()
    support = family.sample(2, generator("tasks")).support
    start = family.init(2, generator("start"))
    before = {name: leaf.clone() for name, leaf in start.items()}
    gradient = ZerothOrder(ZerothOrderSettings(), generator("u")) if zeroth else FirstOrder()
    points = adapt(family, lstm(torch.float64), start, support, steps=3, gradient=gradient)
    for point in points:
        assert not any(leaf.requires_grad for leaf in point.params.values())
    assert all(torch.equal(start[name], before[name]) for name in start)


@pytest.mark.parametrize(("coordinates", "sizes"), [(1, [1] * 5), (2 * 41, [2, 2, 1]), (1000, [5])])
def test_parts_hold_as_many_tasks_as_fit(
    coordinates: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = sine()  # 5 + 5 + 20 + 4 + 4 + 1 coordinates
    tasks, start = family.sample(5, generator("tasks")), family.init(5, generator("start"))
    assert sum(leaf[0].numel() for leaf in start.values()) == 39
    monkeypatch.setattr(module, "SIDE_BY_SIDE", coordinates)
    found = list(parts(tasks, start))
    assert [len(part.support.x) for part, _ in found] == sizes
    for name, leaf in start.items():
        assert torch.equal(torch.cat([params[name] for _, params in found]), leaf)
    for kind in ("support", "query"):
        whole = getattr(tasks, kind)
        joined = [
            torch.cat(leaves) for leaves in zip(*(getattr(p, kind) for p, _ in found), strict=True)
        ]
        assert torch.equal(joined[0], whole.x) and torch.equal(joined[1], whole.y)
