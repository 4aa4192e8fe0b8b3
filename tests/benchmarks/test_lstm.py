"""A segment of the coordinate-wise LSTM, forward and backward, against the usual ways to do it.

Every competitor computes Σ_k ⟨c_k, Δ⁽ᵏ⁾⟩ over 20 steps and its gradient in the weights, from the
same weights, inputs and cotangents; the results are compared before anything is timed. All run on
one core. JAX joins where it is installed.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Generator, Tensor

from lft.config import LSTMSettings
from lft.finetuners.lstm import init_weights, preprocess
from lft.kernels import build as native
from lft.kernels import lstm

STEPS, P, SCALE = 20, 10.0, 0.1
SIZES = (784, 7_840, 30_000, 100_000)
HIDDEN = (10, 20)
Result = tuple[float, dict[str, Tensor]]


class Problem(NamedTuple):
    """One layer with its weights; inputs and cotangents are (STEPS, N)."""

    weights: dict[str, Tensor]
    inputs: Tensor
    cotangents: Tensor


@functools.lru_cache(maxsize=1)
def problem(n: int, hidden: int) -> Problem:
    generator = Generator().manual_seed(n + hidden)
    weights = init_weights(LSTMSettings(hidden=hidden), generator)
    inputs, cotangents = torch.randn(2, STEPS, n, generator=generator)
    return Problem(weights, inputs * 1e-2, cotangents)


def native_kernel(case: Problem) -> Result:
    """The native kernel of this package."""
    hidden, n = len(case.weights["out.w"]), case.inputs.shape[1]
    start = torch.zeros(2, 1, hidden, n)
    state = start.clone()
    updates = [lstm.step_(case.weights, state, g, p=P, scale=SCALE) for g in case.inputs]
    loss = torch.dot(case.cotangents.flatten(), torch.cat(updates)).item()
    return loss, lstm.segment_vjp(
        case.weights, start, case.inputs, case.cotangents, p=P, scale=SCALE
    )


def lstm_cell(case: Problem) -> Result:
    """``nn.LSTMCell`` in the (N, hidden) layout and autograd, as usual code does it."""
    w_ih, w_hh, bias, out_w, out_b = weights = _leaves(case)
    cell = torch.nn.LSTMCell(2, len(out_w))
    zero = torch.zeros_like(bias)
    parameters = {"weight_ih": w_ih, "weight_hh": w_hh, "bias_ih": bias, "bias_hh": zero}
    state = (torch.zeros(case.inputs.shape[1], len(out_w)),) * 2
    loss = torch.zeros(())
    for gradient, cotangent in zip(case.inputs, case.cotangents, strict=True):
        x = preprocess(gradient, P).T
        state = torch.func.functional_call(cell, parameters, (x, state))
        loss = loss + cotangent @ (SCALE * (state[0] @ out_w + out_b))
    return loss.item(), _named(case, torch.autograd.grad(loss, weights))


def transposed(case: Problem) -> Result:
    """The (hidden, N) layout, one ``addmm`` for all gates of a step, and autograd."""
    w_ih, w_hh, bias, out_w, out_b = weights = _leaves(case)
    both = torch.cat([w_ih, w_hh], dim=1)
    h = c = torch.zeros(len(out_w), case.inputs.shape[1])
    loss = torch.zeros(())
    for gradient, cotangent in zip(case.inputs, case.cotangents, strict=True):
        x = torch.cat([preprocess(gradient, P), h])
        i, f, g, o = torch.addmm(bias[:, None], both, x).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        loss = loss + cotangent @ (SCALE * (out_w @ h + out_b))
    return loss.item(), _named(case, torch.autograd.grad(loss, weights))


def jax_scan(case: Problem) -> Result:
    """JAX's jit and scan, (N, hidden) layout."""
    return _jax(case, transpose=False)


def jax_scan_transposed(case: Problem) -> Result:
    """JAX's jit and scan, (hidden, N) layout."""
    return _jax(case, transpose=True)


def _jax(case: Problem, *, transpose: bool) -> Result:
    from jax.numpy import from_dlpack  # no copies

    weights = {name: from_dlpack(leaf) for name, leaf in case.weights.items()}
    arrays = from_dlpack(case.inputs), from_dlpack(case.cotangents)
    loss, gradients = _jax_function(transpose)(weights, *arrays)
    return float(loss), {name: torch.from_dlpack(leaf) for name, leaf in gradients.items()}


@functools.cache
def _jax_function(transpose: bool) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    def features(g):
        large = jnp.abs(g) >= jnp.exp(-P)
        size = jnp.log(jnp.maximum(jnp.abs(g), jnp.exp(-P))) / P
        return jnp.stack([size, jnp.where(large, jnp.sign(g), g * jnp.exp(P))])

    def gates(weights, x, h):
        w_ih, w_hh, b = (weights[f"layer0.{name}"] for name in ("w_ih", "w_hh", "b"))
        if transpose:
            return jnp.split(w_ih @ x + w_hh @ h + b[:, None], 4)
        return jnp.split(x.T @ w_ih.T + h @ w_hh.T + b, 4, axis=1)

    def loss(weights, inputs, cotangents):
        def step(state, step_data):
            (h, c), (g, cotangent) = state, step_data
            i, f, candidate, o = gates(weights, features(g), h)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(candidate)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            out = weights["out.w"] @ h if transpose else h @ weights["out.w"]
            return (h, c), cotangent @ (SCALE * (out + weights["out.b"]))

        shape = (len(weights["out.w"]), inputs.shape[1])
        zeros = jnp.zeros(shape if transpose else shape[::-1])
        return jax.lax.scan(step, (zeros, zeros), (inputs, cotangents))[1].sum()

    return jax.jit(jax.value_and_grad(loss))


def _leaves(case: Problem) -> list[Tensor]:
    return [leaf.clone().requires_grad_() for leaf in case.weights.values()]


def _named(case: Problem, gradients: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return dict(zip(case.weights, gradients, strict=True))


@pytest.fixture(autouse=True, scope="module")
def one_core() -> None:
    """Pin to one core before JAX counts them, and build the kernel before anything is timed."""
    torch.set_num_threads(1)
    assert native.available(torch.device("cpu"), torch.float32)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@pytest.mark.parametrize(
    "competitor", [native_kernel, lstm_cell, transposed, jax_scan, jax_scan_transposed]
)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_segment(
    benchmark: BenchmarkFixture, n: int, hidden: int, competitor: Callable[[Problem], Result]
) -> None:
    if competitor in (jax_scan, jax_scan_transposed):
        pytest.importorskip("jax")
    case = problem(n, hidden)
    _check_agreement(competitor(case), lstm_cell(case))
    benchmark.group = f"LSTM segment, {n} coordinates, hidden {hidden}"
    rounds = max(4, min(50, 300_000 // n))
    benchmark.pedantic(competitor, args=(case,), rounds=rounds, warmup_rounds=1)
    benchmark.extra_info["ns per coordinate and step"] = (
        benchmark.stats.stats.min / (n * STEPS) * 1e9
    )


def _check_agreement(result: Result, expected: Result) -> None:
    # float32 sums over up to 2 million terms of either sign
    loss, gradients = result
    assert loss == pytest.approx(expected[0], rel=1e-3)
    for name, gradient in expected[1].items():
        assert (gradients[name] - gradient).norm() <= 1e-3 * gradient.norm()


_PEAK = """
import re, sys, torch
from pathlib import Path
from tests.benchmarks import test_lstm as benchmark
from lft.kernels import build as native
torch.set_num_threads(1)
native.available(torch.device("cpu"), torch.float32)
competitor = getattr(benchmark, sys.argv[1])
competitor(benchmark.problem(64, 10))
case = benchmark.problem(int(sys.argv[2]), 10)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
competitor(case)
print(peak() - before)
"""


def peak_megabytes(competitor: str, n: int) -> float:
    """Resident memory that a segment adds, at its peak, to weights and inputs."""
    out = subprocess.run(
        [sys.executable, "-c", _PEAK, competitor, str(n)],
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(out.stdout) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_memory(benchmark: BenchmarkFixture) -> None:
    names = ("lstm_cell", "transposed", "native_kernel")
    peaks = benchmark.pedantic(lambda: {name: peak_megabytes(name, 100_000) for name in names})
    benchmark.extra_info["peak MB"] = peaks
    print("peak memory of a segment:", {name: f"{peak:.0f} MB" for name, peak in peaks.items()})
    assert peaks["native_kernel"] < peaks["lstm_cell"] / 5
