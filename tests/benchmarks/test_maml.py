"""MAML's meta-gradient on sine regression, against the usual ways and other libraries.

25 tasks, 10 support and 10 query points, MLP 1-40-40-1, 5 inner steps, second order. Every
competitor computes the mean query loss after the inner steps and its gradient in the
initialisation, from the same weights and points; both are compared before anything is timed. All
run on one core. JAX, TorchOpt and higher join where they are installed (extra ``peers``).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.nn import functional

from lft.config import load_profile
from lft.kernels.build import Kernel
from lft.meta.estimators import meta_gradient
from lft.meta.learner import Learner
from lft.seeding import generator
from lft.tasks.sine import Sine
from lft.types import Batch, Params, TaskBatch

TASKS, STEPS, STEP_SIZE = 25, 5, 0.01
Result = tuple[float, Params]


class Problem(NamedTuple):
    """An initialisation, without task axis, and tasks, (B, n, 1)."""

    init: Params
    x: Tensor
    y: Tensor
    query_x: Tensor
    query_y: Tensor


@functools.cache
def learner() -> Learner:
    experiment = load_profile("quick").experiment("sine")
    maml = experiment.maml.model_copy(update={"steps": STEPS, "step_size": {"first": STEP_SIZE}})
    return Learner(
        load_profile("quick").experiment("sine").base_method("maml"),
        experiment.model_copy(update={"maml": maml}),
    )


def family(kernel: Kernel) -> Sine:
    return Sine(learner().experiment.families["sine"], kernel=kernel)


@functools.cache
def problem() -> Problem:
    tasks = family("torch").sample(TASKS, generator("tasks"))
    init = family("torch").init(1, generator("start"))
    return Problem({name: leaf[0] for name, leaf in init.items()}, *tasks.support, *tasks.query)


def native_kernel(case: Problem) -> Result:
    """This package."""
    return _package(case, "auto")


def plain(case: Problem) -> Result:
    """This package without its native kernels: batched products and autograd."""
    return _package(case, "torch")


def _package(case: Problem, kernel: Kernel) -> Result:
    rule = learner()
    tasks = TaskBatch(Batch(case.x, case.y), Batch(case.query_x, case.query_y))
    meta = {f"init/{name}": leaf for name, leaf in case.init.items()}
    segment = meta_gradient(rule, meta, family(kernel), tasks, None, generator("unused"))
    return segment.loss.item(), {k.removeprefix("init/"): v for k, v in segment.grads.items()}


def _network(params: Params, x: Tensor) -> Tensor:
    for layer in range(2):
        x = (x @ params[f"w{layer}"] + params[f"b{layer}"]).relu()
    return x @ params["w2"] + params["b2"]


def _loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(_network(params, x), y)


def explicit_loop(case: Problem) -> Result:
    """One task after the other, inner steps by ``autograd.grad``."""
    init = _leaves(case)
    total = torch.zeros(())
    for x, y, query_x, query_y in zip(*case[1:], strict=True):
        params = init
        for _ in range(STEPS):
            grads = torch.autograd.grad(_loss(params, x, y), params.values(), create_graph=True)
            params = {
                name: leaf - STEP_SIZE * g
                for (name, leaf), g in zip(params.items(), grads, strict=True)
            }
        total = total + _loss(params, query_x, query_y) / TASKS
    return _result(total, init)


def vmapped(case: Problem) -> Result:
    """``torch.func``: vmap over tasks, outer gradient too."""

    def adapted_loss(init: Params, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Any:
        params = init
        for _ in range(STEPS):
            grads = grad(_loss)(params, x, y)
            params = {name: leaf - STEP_SIZE * grads[name] for name, leaf in params.items()}
        return _loss(params, query_x, query_y)

    def mean(init: Params) -> Tensor:
        return vmap(adapted_loss, in_dims=(None, 0, 0, 0, 0))(init, *case[1:]).mean()

    grads, loss = grad_and_value(mean)(case.init)
    return loss.item(), grads


class _Module(torch.nn.Module):
    """The network as a module, for the libraries."""

    def __init__(self, case: Problem) -> None:
        super().__init__()
        self.params = torch.nn.ParameterDict({k: v.clone() for k, v in case.init.items()})

    def forward(self, x: Tensor) -> Tensor:
        return _network(self.params, x)


def functional_loop(case: Problem) -> Result:
    """One task after the other, ``functional_call`` of a module."""
    module = _Module(case)
    init = dict(module.named_parameters())
    total = torch.zeros(())
    for x, y, query_x, query_y in zip(*case[1:], strict=True):
        params = init
        for _ in range(STEPS):
            loss = functional.mse_loss(functional_call(module, params, (x,)), y)
            grads = torch.autograd.grad(loss, params.values(), create_graph=True)
            params = {
                name: leaf - STEP_SIZE * g
                for (name, leaf), g in zip(params.items(), grads, strict=True)
            }
        output = functional_call(module, params, (query_x,))
        total = total + functional.mse_loss(output, query_y) / TASKS
    return _result(total, {name.removeprefix("params."): leaf for name, leaf in init.items()})


def higher(case: Problem) -> Result:
    """higher's ``innerloop_ctx``."""
    import higher as library

    module = _Module(case)
    total = 0.0
    for x, y, query_x, query_y in zip(*case[1:], strict=True):
        optimizer = torch.optim.SGD(module.parameters(), lr=STEP_SIZE)
        context = library.innerloop_ctx(module, optimizer, copy_initial_weights=False)
        with context as (adapted, inner):
            for _ in range(STEPS):
                inner.step(functional.mse_loss(adapted(x), y))
            loss = functional.mse_loss(adapted(query_x), query_y) / TASKS
            loss.backward()
            total += loss.item()
    return total, {name: leaf.grad for name, leaf in module.params.items()}


def torchopt(case: Problem) -> Result:
    """TorchOpt's ``MetaSGD``."""
    import torchopt as library

    module = _Module(case)
    inner = library.MetaSGD(module, lr=STEP_SIZE)
    start, state = library.extract_state_dict(module), library.extract_state_dict(inner)
    init = dict(module.params.items())
    total = 0.0
    for x, y, query_x, query_y in zip(*case[1:], strict=True):
        for _ in range(STEPS):
            inner.step(functional.mse_loss(module(x), y))
        loss = functional.mse_loss(module(query_x), query_y) / TASKS
        loss.backward()
        total += loss.item()
        library.recover_state_dict(module, start)
        library.recover_state_dict(inner, state)
    return total, {name: leaf.grad for name, leaf in init.items()}


def jax(case: Problem) -> Result:
    """JAX: jit of the gradient, vmap over tasks."""
    from jax.numpy import from_dlpack  # no copies

    init = {name: from_dlpack(leaf) for name, leaf in case.init.items()}
    loss, grads = _jax_function()(init, *(from_dlpack(leaf) for leaf in case[1:]))
    return float(loss), {name: torch.from_dlpack(leaf) for name, leaf in grads.items()}


@functools.cache
def _jax_function() -> Callable[..., Any]:
    import jax as library
    import jax.numpy as jnp

    def loss(params, x, y):
        for layer in range(2):
            x = library.nn.relu(x @ params[f"w{layer}"] + params[f"b{layer}"])
        return jnp.mean((x @ params["w2"] + params["b2"] - y) ** 2)

    def adapted_loss(params, x, y, query_x, query_y):
        for _ in range(STEPS):
            grads = library.grad(loss)(params, x, y)
            params = {name: leaf - STEP_SIZE * grads[name] for name, leaf in params.items()}
        return loss(params, query_x, query_y)

    def mean(init, *points):
        return library.vmap(adapted_loss, in_axes=(None, 0, 0, 0, 0))(init, *points).mean()

    return library.jit(library.value_and_grad(mean))


def _leaves(case: Problem) -> Params:
    return {name: leaf.clone().requires_grad_() for name, leaf in case.init.items()}


def _result(loss: Tensor, init: Params) -> Result:
    grads = torch.autograd.grad(loss, list(init.values()))
    return loss.item(), dict(zip(init, grads, strict=True))


@pytest.fixture(autouse=True, scope="module")
def one_core() -> None:
    """Pin to one core before JAX counts them."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


COMPETITORS = [
    native_kernel,
    plain,
    jax,
    vmapped,
    explicit_loop,
    functional_loop,
    torchopt,
    higher,
]


@pytest.mark.parametrize("competitor", COMPETITORS)
def test_meta_gradient(
    benchmark: BenchmarkFixture, competitor: Callable[[Problem], Result]
) -> None:
    if competitor in (jax, torchopt, higher):
        pytest.importorskip(competitor.__name__)
    case = problem()
    began = time.perf_counter()
    loss, grads = competitor(case)
    benchmark.extra_info["first call, s"] = time.perf_counter() - began
    expected_loss, expected = explicit_loop(case)
    # float32 sums over 25 tasks, and rounding that five steps carry on
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, leaf in expected.items():
        assert (grads[name] - leaf).norm() <= 1e-4 * leaf.norm()
    benchmark.group = f"MAML, {TASKS} sine tasks, {STEPS} steps, second order"
    fast = competitor in (native_kernel, plain, jax)
    benchmark.pedantic(competitor, args=(case,), rounds=200 if fast else 8, warmup_rounds=2)
