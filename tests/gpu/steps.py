"""Times of meta-gradients with many tasks side by side: one line of JSON for each on stdout.

    python tests/gpu/steps.py --device cuda:0 --modes eager graph

Problems:

* ``lstm``: nothing but the fine-tuner, a segment of ten steps forward and back on random gradients
  of 784 coordinates a task;
* ``lstm-seeds``: the same with other weights for every five tasks, as if so many seeds were trained
  side by side;
* ``lft-attack``, ``lft-cnn``, ``lft-sine``: a segment of ten steps of LFT, second-order terms
  dropped, in the sizes of the profile quick, on small pictures of three kinds;
* ``maml-sine``, ``maml-cnn``: MAML's meta-gradient through five steps.

Modes: ``eager`` as in a meta-training; ``graph`` replays the same as one CUDA graph; ``compile``
puts the LSTM's step, or MAML's whole gradient, through ``torch.compile``; ``graph+compile`` both.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tiny import tiny_images, tiny_profile
from torch import Tensor

from lft.config import AttackFamily, ClassificationFamily, LSTMSettings, Profile, load_profile
from lft.data import ImageSet
from lft.finetuners.gradient_descent import SGD
from lft.finetuners.lstm import CoordinateLSTM, init_weights, preprocess
from lft.kernels.build import Kernel
from lft.meta.adapt import adapt
from lft.meta.estimators import meta_gradient
from lft.meta.learner import Learner
from lft.runtime.device import settings
from lft.seeding import generator
from lft.tasks.attack import Attack
from lft.tasks.base import Objective, TaskFamily
from lft.tasks.build import on_device
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.tasks.victim import LeNet5
from lft.types import Batch, Params, TaskBatch

PROBLEMS = ("lstm", "lstm-seeds", "lft-attack", "lft-sine", "maml-sine", "lft-cnn", "maml-cnn")
SIZES = (5, 50, 500, 5000)
MODES = ("eager", "graph", "compile", "graph+compile")
SEGMENT = 10
SECONDS = 0.4
"""Spent on repetitions, of which there are one to thirty."""
SLOWEST = 5.0
"""Seconds of a step after which larger sizes are left out."""

Result = tuple[Tensor, Tensor]
"""The outer loss, and the meta-gradient as one vector."""


class Case(NamedTuple):
    """One meta-gradient, ready to be computed again and again.

    Attributes:
        run: computes it; reads and writes the same memory each time.
        coordinates: of all tasks together.
        steps: K.
    """

    run: Callable[[], Result]
    coordinates: int
    steps: int


@functools.cache
def pictures(device: str, channels: int, side: int) -> ImageSet:
    return on_device(tiny_images(channels, side), torch.device(device))


@functools.cache
def quick() -> Profile:
    return load_profile(Path("quick"))


def family(name: str, device: str, kernel: Kernel) -> TaskFamily:
    """The optimizees of the profile quick: MNIST's perturbations, the CNN of photographs, sines."""
    settings = quick().experiments
    if name == "sine":
        return Sine(settings["sine"].families["sine"], device, kernel)
    shape = (1, 28) if name == "attack" else (3, 32)
    images = pictures(device, *shape)
    pools = Pools(images, "disjoint", 0.5)
    if name == "cnn":
        cnn = settings["classification"].families["cifar10"]
        assert isinstance(cnn, ClassificationFamily)
        return Classification(cnn, images, pools, kernel)
    victim = LeNet5((1, 28, 28), 3, kernel)
    victim.initialise(0)
    attack = settings["attack"].families["mnist"]
    assert isinstance(attack, AttackFamily)
    return Attack(attack, victim.requires_grad_(False).to(device).eval(), pools)


def learner(method: str, name: str, kernel: Kernel) -> Learner:
    experiment = quick().experiments["classification" if name == "cnn" else name]
    training = experiment.training.model_copy(update={"steps": SEGMENT, "segment": SEGMENT})
    experiment = experiment.model_copy(update={"training": training})
    return Learner(experiment.base_method(method), experiment, "first", kernel)


def case(problem: str, n_tasks: int, device: str, *, compiled: bool = False) -> Case:
    """A problem on a device; native kernels where the device has them."""
    if problem == "lstm":
        return _lstm(784 * n_tasks, device, compiled)
    if problem == "lstm-seeds":
        return _lstm_of_seeds(max(1, n_tasks // 5), 784 * min(5, n_tasks), device)
    method, name = problem.split("-")
    kernel: Kernel = "torch" if compiled else "auto"
    made, rule = family(name, device, kernel), learner(method, name, kernel)
    tasks = made.sample(n_tasks, generator("tasks"), "train")
    start = made.init(n_tasks, generator("start"))
    meta = rule.initial(made, generator("meta"))
    made.init = lambda n_tasks, generator: start  # type: ignore[method-assign]
    sizes = sum(leaf.numel() for leaf in start.values())
    unused = generator("unused")

    def run() -> Result:
        with _compiled_step(compiled):
            segment = meta_gradient(rule, meta, made, tasks, None, unused)
        return segment.loss, _flat(segment.grads)

    if method == "maml" and compiled:
        theta = rule.start(meta, made, n_tasks, unused)

        def run() -> Result:
            arguments = theta, tasks, rule.plan.steps, rule.step_size(meta)
            losses, grads = descend_compiled(made, *arguments)
            return losses.mean(), _flat({k: leaf.mean(0) for k, leaf in grads.items()})

    return Case(run, sizes, rule.plan.segment)


def _lstm(coordinates: int, device: str, compiled: bool) -> Case:
    settings = quick().experiments["attack"].finetuner
    weights = {k: w.to(device) for k, w in init_weights(settings, generator("phi")).items()}
    tuner = CoordinateLSTM(weights, settings)
    shape = (SEGMENT, coordinates)
    inputs = (0.1 * torch.randn(shape, generator=generator("inputs"))).to(device)
    cotangents = torch.randn(shape, generator=generator("cotangents")).to(device)
    theta = {"theta": torch.zeros(1, coordinates, device=device)}
    start = tuner.start(theta)

    def run() -> Result:
        with torch.no_grad(), _compiled_step(compiled):
            state, moved = start.clone(), theta
            for gradient in inputs:
                state, moved = tuner.advance(state, moved, {"theta": gradient[None]})
            return moved["theta"].mean(), _flat(tuner.segment_vjp(start, inputs, cotangents))

    return Case(run, coordinates, SEGMENT)


def _lstm_of_seeds(seeds: int, coordinates: int, device: str) -> Case:
    """A fine-tuner of its own for each seed, (S, …), all in batched products."""
    settings = quick().experiments["attack"].finetuner
    each = [init_weights(settings, generator("phi", seed)) for seed in range(seeds)]
    weights = {k: torch.stack([w[k] for w in each]).to(device).requires_grad_() for k in each[0]}
    shape = (SEGMENT, seeds, coordinates)
    inputs = (0.1 * torch.randn(shape, generator=generator("inputs"))).to(device)
    cotangents = torch.randn(shape, generator=generator("cotangents")).to(device)
    features = preprocess(inputs.flatten(), settings.preprocess_p).view(2, *shape).movedim(0, 2)
    zero = torch.zeros(2, settings.layers, seeds, settings.hidden, coordinates, device=device)

    def run() -> Result:
        with torch.no_grad():
            state, total = zero, torch.zeros(seeds, coordinates, device=device)
            for fed in features:
                state, update = seeds_step(weights, settings, state, fed)
                total = total - update
        state, loss = zero, torch.zeros((), device=device)
        for fed, cotangent in zip(features, cotangents, strict=True):
            state, update = seeds_step(weights, settings, state, fed)
            loss = loss + (update * cotangent).sum()
        grads = torch.autograd.grad(loss, list(weights.values()))
        return total.mean(), _flat(dict(zip(weights, grads, strict=True)))

    return Case(run, seeds * coordinates, SEGMENT)


def seeds_step(
    weights: Params, settings: LSTMSettings, state: Tensor, features: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of S fine-tuners: weights (S, …), state (2, layers, S, hidden, n), features
    (S, 2, n), update (S, n)."""
    hidden, cell = [], []
    for layer in range(settings.layers):
        bias, fed, back = (weights[f"layer{layer}.{part}"] for part in ("b", "w_ih", "w_hh"))
        gates = torch.baddbmm(bias[..., None], fed, features)
        gates = torch.baddbmm(gates, back, state[0, layer])
        enter, forget, candidate, leave = gates.chunk(4, 1)
        memory = forget.sigmoid() * state[1, layer] + enter.sigmoid() * candidate.tanh()
        features = leave.sigmoid() * memory.tanh()
        hidden.append(features)
        cell.append(memory)
    out = torch.baddbmm(weights["out.b"][:, None, None], weights["out.w"][:, None], features)
    state = torch.stack([torch.stack(hidden), torch.stack(cell)])
    return state, settings.output_scale * out[:, 0]


def _flat(params: Params) -> Tensor:
    return torch.cat([leaf.flatten() for leaf in params.values()])


class _compiled_step:  # noqa: N801
    """Inside it, the LSTM's step is compiled, once for all numbers of coordinates."""

    compiled: Any = None

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted

    def __enter__(self) -> None:
        self.plain = CoordinateLSTM._step
        if self.wanted:
            cls = type(self)
            cls.compiled = cls.compiled or torch.compile(self.plain, dynamic=True)
            CoordinateLSTM._step = cls.compiled  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        CoordinateLSTM._step = self.plain  # type: ignore[method-assign]


@functools.cache
def _descent() -> Callable[..., tuple[Tensor, Params]]:
    return torch.compile(_descend, fullgraph=True, dynamic=False)


def descend_compiled(*arguments: Any) -> tuple[Tensor, Params]:
    """Losses after gradient descent and their gradients in θ⁽⁰⁾ (eq. 1), as one program."""
    return _descent()(*arguments)


def _descend(
    family: TaskFamily, params: Params, tasks: TaskBatch, steps: int, step_size: float
) -> tuple[Tensor, Params]:
    def gradient(family: Objective, params: Params, batch: Batch) -> Params:
        found: Params = torch.func.grad(lambda leaves: family.loss(leaves, batch).sum())(params)
        return found

    def total(params: Params) -> tuple[Tensor, Tensor]:
        *_, point = adapt(
            family, SGD(step_size), params, tasks.support, steps=steps, gradient=gradient
        )
        losses = family.loss(point.params, tasks.query)
        return losses.sum(), losses

    grads, losses = torch.func.grad(total, has_aux=True)(params)
    return losses, grads


def captured(run: Callable[[], Result]) -> Callable[[], Result]:
    """The same as one CUDA graph, launched at once."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Result:
        graph.replay()
        return result

    return replay


def timed(run: Callable[[], Result], device: str) -> tuple[float, float, Result]:
    """Median and least seconds of a call, and what it gave; the first calls do not count."""

    def once() -> float:
        began = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()
    spent = [once()]
    while sum(spent) < SECONDS and len(spent) < 30:
        spent.append(once())
    return statistics.median(spent), min(spent), run()


def launched(run: Callable[[], Result]) -> dict[str, Any]:
    """What a GPU does in one call: how many kernels, how long they take, which take longest."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    kernels = [e for e in profile.key_averages() if e.self_device_time_total > 0]
    kernels.sort(key=lambda event: event.self_device_time_total, reverse=True)
    return {
        "kernels": sum(event.count for event in kernels),
        "busy_seconds": sum(event.self_device_time_total for event in kernels) / 1e6,
        "longest": {e.key[:80]: e.self_device_time_total / 1e6 for e in kernels[:5]},
    }


def measured(problem: str, n_tasks: int, device: str, mode: str) -> dict[str, Any]:
    """One row."""
    began = time.perf_counter()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    ready = case(problem, n_tasks, device, compiled="compile" in mode)
    drawn = time.perf_counter()
    run = captured(ready.run) if "graph" in mode else ready.run
    median, least, (loss, gradient) = timed(run, device)
    steps = ready.coordinates * ready.steps
    on_gpu = launched(run) if device != "cpu" and mode == "eager" else {}
    return on_gpu | {
        "coordinates": ready.coordinates,
        "seconds": median,
        "least_seconds": least,
        "ns_per_coordinate_step": 1e9 * median / steps,
        "seconds_to_draw": drawn - began,
        "seconds_in_all": time.perf_counter() - began,
        "peak_mb": None if device == "cpu" else torch.cuda.max_memory_allocated() / 1e6,
        "loss": float(loss),
        "gradient_norm": float(gradient.double().norm()),
    }


def rows(
    problems: list[str], sizes: list[int], device: str, modes: list[str]
) -> Iterator[dict[str, Any]]:
    """Small sizes first, so that what a time limit cuts off is the rest of the large ones."""
    too_slow: set[tuple[str, str]] = set()
    for mode, n_tasks, problem in itertools.product(modes, sizes, problems):
        row: dict[str, Any] = {
            "problem": problem, "tasks": n_tasks, "device": device.split(":")[0], "mode": mode,
            "threads": torch.get_num_threads(),
        }  # fmt: skip
        if (problem, mode) in too_slow:
            yield row | {"error": f"left out: the smaller one took over {SLOWEST:g} s"}
            continue
        try:
            row |= measured(problem, n_tasks, device, mode)
        except Exception as error:  # a mode that fails is an outcome
            too_slow |= {(problem, mode)} if "compile" in mode else set()
            row["error"] = f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"
        if row.get("seconds", 0.0) > SLOWEST:
            too_slow.add((problem, mode))
        yield row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["eager"])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with settings(tiny_profile(device=options.device, threads=options.threads)):
        for row in rows(options.problems, options.sizes, options.device, options.modes):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
