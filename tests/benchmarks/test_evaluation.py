"""Fine-tuning 100 sine tasks for 100 or 200 steps with an LSTM, against the usual ways.

Every competitor fine-tunes MLPs 1-40-40-1 on 10 points with an LSTM of hidden size 10, and returns
the losses after the last step; these are compared before anything is timed. All run on one core.
JAX joins where it is installed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from lft.config import LSTMSettings, SineFamily
from lft.finetuners.lstm import CoordinateLSTM, init_weights, preprocess
from lft.meta.adapt import adapt
from lft.meta.gradients import FirstOrder, value_and_grad
from lft.seeding import generator
from lft.tasks.sine import Sine
from lft.types import Batch, Params, flatten, unflatten

TASKS, HIDDEN, P, SCALE = 100, 10, 10.0, 0.1
SETTINGS = SineFamily(support=10, query=10, hidden=(40, 40))
FAMILY, PLAIN = Sine(SETTINGS), Sine(SETTINGS, kernel="torch")
WEIGHTS = init_weights(LSTMSettings(hidden=HIDDEN), generator("weights"))
START = FAMILY.init(TASKS, generator("start"))
SUPPORT = FAMILY.sample(TASKS, generator("tasks")).support


def side_by_side(steps: int) -> Tensor:
    """This package: all tasks in one program, the native LSTM."""
    tuner = CoordinateLSTM(WEIGHTS, LSTMSettings(hidden=HIDDEN))
    with torch.no_grad():
        for point in adapt(FAMILY, tuner, START, SUPPORT, steps=steps, gradient=FirstOrder()):
            pass
        return FAMILY.loss(point.params, SUPPORT)


def batched_cell(steps: int) -> Tensor:
    """All tasks in one program, ``nn.LSTMCell``."""
    return _with_cell(START, SUPPORT, steps)


def loop(steps: int) -> Tensor:
    """One task after the other, ``nn.LSTMCell``."""
    losses = []
    for task in range(TASKS):
        one = slice(task, task + 1)
        start = {name: leaf[one] for name, leaf in START.items()}
        losses.append(_with_cell(start, Batch(SUPPORT.x[one], SUPPORT.y[one]), steps))
    return torch.cat(losses)


@torch.no_grad()
def _with_cell(params: Params, support: Batch, steps: int) -> Tensor:
    cell = torch.nn.LSTMCell(2, HIDDEN)
    cell.weight_ih.copy_(WEIGHTS["layer0.w_ih"])
    cell.weight_hh.copy_(WEIGHTS["layer0.w_hh"])
    cell.bias_ih.copy_(WEIGHTS["layer0.b"])
    cell.bias_hh.zero_()
    n = sum(leaf.numel() for leaf in params.values())
    state = (torch.zeros(n, HIDDEN), torch.zeros(n, HIDDEN))
    for _ in range(steps):
        _, grads = value_and_grad(PLAIN, params, support)
        state = cell(preprocess(flatten(grads), P).T, state)
        update = unflatten(SCALE * (state[0] @ WEIGHTS["out.w"] + WEIGHTS["out.b"]), params)
        params = {name: params[name] - update[name] for name in params}
    return PLAIN.loss(params, support)


def jax_scan(steps: int) -> Tensor:
    """JAX: jit, vmap over tasks, scan over steps."""
    from jax.numpy import from_dlpack

    trees = [{k: from_dlpack(v) for k, v in tree.items()} for tree in (WEIGHTS, START)]
    losses = _jax_function(steps)(*trees, from_dlpack(SUPPORT.x), from_dlpack(SUPPORT.y))
    return torch.from_dlpack(losses)


@functools.cache
def _jax_function(steps: int) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    def loss(params, x, y):
        for layer in range(2):
            x = jax.nn.relu(x @ params[f"w{layer}"] + params[f"b{layer}"])
        return jnp.mean((x @ params["w2"] + params["b2"] - y) ** 2)

    def features(g):
        large = jnp.abs(g) >= jnp.exp(-P)
        size = jnp.log(jnp.maximum(jnp.abs(g), jnp.exp(-P))) / P
        return jnp.stack([size, jnp.where(large, jnp.sign(g), g * jnp.exp(P))])

    def one_task(weights, params, x, y):
        theta, restored = ravel_pytree(params)
        w_ih, w_hh, b = (weights[f"layer0.{name}"] for name in ("w_ih", "w_hh", "b"))

        def step(carried, _):
            theta, h, c = carried
            g, _ = ravel_pytree(jax.grad(loss)(restored(theta), x, y))
            i, f, candidate, o = jnp.split(w_ih @ features(g) + w_hh @ h + b[:, None], 4)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(candidate)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (theta - SCALE * (weights["out.w"] @ h + weights["out.b"]), h, c), None

        zeros = jnp.zeros((HIDDEN, len(theta)))
        (theta, _, _), _ = jax.lax.scan(step, (theta, zeros, zeros), length=steps)
        return loss(restored(theta), x, y)

    return jax.jit(jax.vmap(one_task, in_axes=(None, 0, 0, 0)))


@pytest.fixture(autouse=True, scope="module")
def one_core() -> None:
    """Pin to one core before JAX counts them."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@pytest.mark.parametrize("steps", [100, 200])
@pytest.mark.parametrize("competitor", [side_by_side, batched_cell, jax_scan, loop])
def test_evaluation(
    benchmark: BenchmarkFixture, competitor: Callable[[int], Tensor], steps: int
) -> None:
    if competitor is jax_scan:
        pytest.importorskip("jax")
    # float32: rounding grows over steps of a chaotic map, so a median is compared.
    difference = (competitor(steps) - side_by_side(steps)).abs() / side_by_side(steps)
    assert difference.median() < 1e-2
    benchmark.group = f"evaluation, {TASKS} sine tasks x {steps} steps"
    rounds = {loop: 1, batched_cell: 2}.get(competitor, 10)
    benchmark.pedantic(competitor, args=(steps,), rounds=rounds)
