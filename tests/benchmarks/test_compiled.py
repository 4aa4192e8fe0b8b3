"""From how many meta-batches on it pays to compile MAML's meta-gradient, without native kernels.

25 sine tasks, or five of the others; second order. Both ways compute the same meta-gradient, which
is checked before anything is timed. ``pays from`` is the time of compiling, with that of loading
the compiler, over what a meta-batch saves. All run on one core.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tiny import tiny_images

from lft.config import AttackFamily, ClassificationFamily, load_profile
from lft.learner import Learner
from lft.metagradient import Segment, meta_gradient
from lft.seeding import generator
from lft.tasks.attack import Attack
from lft.tasks.base import TaskFamily
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.tasks.victim import LeNet5

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


class Case(NamedTuple):
    """Tasks of a family, the experiment of ``quick`` whose settings they take, and inner steps."""

    family: Callable[[], TaskFamily]
    experiment: str
    tasks: int
    steps: int


def sine() -> TaskFamily:
    return Sine(load_profile("quick").experiment("sine").families["sine"], kernel="torch")


def mlp() -> TaskFamily:
    return _classification(GREY, "mlp", (20,))


def cnn() -> TaskFamily:
    return _classification(COLOUR, "cnn", (16, 16, 16, 16))


def _classification(shape: tuple[int, int, int], net: str, widths: tuple[int, ...]) -> TaskFamily:
    settings = ClassificationFamily(
        source="tiny", net=net, widths=widths, ways=2, support=5, query=5, outputs="ways"
    )
    images = tiny_images(*shape[:2])
    return Classification(settings, images, Pools(images, "disjoint", 0.5), "torch")


def attack() -> TaskFamily:
    victim = LeNet5(COLOUR, 3, "torch")
    victim.initialise(0)
    settings = AttackFamily(source="tiny", classes=2, support=2, query=2, only_correct=False)
    pools = Pools(tiny_images(*COLOUR[:2]), "disjoint", 0.5)
    return Attack(settings, victim.requires_grad_(False).eval(), pools)


CASES = {
    "sine, 1 step": Case(sine, "sine", 25, 1),
    "sine, 5 steps": Case(sine, "sine", 25, 5),
    "sine, 10 steps": Case(sine, "sine", 25, 10),
    "MLP": Case(mlp, "classification", 5, 5),
    "CNN": Case(cnn, "classification", 5, 5),
    "attack": Case(attack, "attack", 5, 5),
}


@pytest.mark.parametrize("name", CASES)
def test_compiling(benchmark: BenchmarkFixture, name: str, loading: float) -> None:
    case = CASES[name]
    experiment = load_profile("quick").experiment(case.experiment)
    maml = experiment.maml.model_copy(update={"steps": case.steps, "step_size": {"first": 0.01}})
    experiment = experiment.model_copy(update={"maml": maml})
    plain = Learner(experiment.base_method("maml"), experiment, kernel="torch")
    family = case.family()
    tasks = family.sample(case.tasks, generator("tasks"), "train")
    meta = plain.initial(family, generator("start"))

    def run(learner: Learner) -> Segment:
        return meta_gradient(learner, meta, family, tasks, None, generator("unused"))

    began = time.perf_counter()
    found = run(replace(plain, compiled=True))
    compiling = loading + time.perf_counter() - began
    for leaf, expected in zip(found.grads.values(), run(plain).grads.values(), strict=True):
        # float32 sums over tasks, and rounding that up to ten steps carry on
        assert (leaf - expected).norm() <= 1e-4 * expected.norm()
    seconds = min(_timed(lambda: run(plain)) for _ in range(50))
    benchmark.group = "MAML's meta-gradient, compiled"
    benchmark.pedantic(run, args=(replace(plain, compiled=True),), rounds=50, warmup_rounds=2)
    saved = seconds - benchmark.stats.stats.min
    benchmark.extra_info |= {
        "compiling, s": compiling,
        "plain, ms": 1000 * seconds,
        "pays from": compiling / saved if saved > 0 else "never",
    }


def _timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


@pytest.fixture(scope="module")
def loading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[float]:
    """Pins to one core and compiles into a folder of its own.

    Yields:
        Seconds that a process loads the compiler, which it does once.
    """
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield _timed(lambda: torch.compile(torch.neg)(torch.zeros(1)))
