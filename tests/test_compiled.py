"""Whether a run compiles MAML's meta-gradient, and that it is the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from descent import STEP_SIZE, STEPS, assert_close, descended, double, far_from_kinks
from tiny import tiny_images, tiny_profile

from lft import compiled, native
from lft.config import ClassificationFamily, Run, SineFamily
from lft.learner import Learner
from lft.metatrain import train
from lft.records import read_json
from lft.seeding import generator
from lft.tasks.attack import Attack
from lft.tasks.base import TaskFamily
from lft.tasks.classification import Classification
from lft.tasks.pools import Pools
from lft.tasks.sine import Sine
from lft.types import Params
from lft.weights import load_tensors
from lft.world import build_families


def sine() -> TaskFamily:
    return Sine(SineFamily(support=4, query=5, hidden=(6,)), kernel="torch")


def images() -> TaskFamily:
    settings = ClassificationFamily(source="tiny", net="cnn", widths=(3,), support=2, query=3)
    data = tiny_images(1, 28)
    return Classification(settings, data, Pools(data, "disjoint", 0.5), "torch")


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiles anew, into a folder of the test's own."""
    if not native.available(torch.device("cpu"), torch.float32):
        pytest.skip("no compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def case(method: str = "maml", order: Any = "first", **changes: Any) -> tuple[Learner, TaskFamily]:
    profile = tiny_profile(**changes)
    learner = Learner.of(profile, Run("sine", "sine", method, order, 0))
    (family,) = build_families(profile, learner.experiment, ["sine"], Path()).values()
    return learner, family


def trained(results: Path) -> tuple[str, Params]:
    """What a run of MAML on sines says of its kernel, and its weights."""
    run = Run("sine", "sine", "maml", "first", 0)
    train(tiny_profile(), run, results)
    kernel = read_json(results / run.folder / "run.json")["kernel"]
    return kernel, load_tensors(results / run.folder / "weights.safetensors")[0]


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("make", [sine, images])
def test_the_same_as_autograd_in_float64(make: Callable[[], TaskFamily]) -> None:
    family = make()
    for seed in range(20):
        tasks = family.sample(3, generator("tasks", seed), "train")
        start = family.init(3, generator("start", seed))
        if far_from_kinks(family, start, tasks):
            break
    found = compiled.descend(family, start, tasks, STEPS, STEP_SIZE)
    expected = descended(family, *double(start, tasks))
    # float32 sums; a rounding before the first step grows by a factor of ten.
    assert_close(found[0], expected[0], 1e-4)
    for name in start:
        assert_close(found[1][name], expected[1][name], 1e-4)
        assert_close(found[2][name], expected[2][name], 1e-4)


@pytest.mark.usefixtures("compiler")
def test_a_long_run_compiles_and_has_the_same_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lft.compiled")
    kernel, plain = trained(tmp_path / "short")
    assert kernel == "torch"
    assert "pays from 10000 meta-batches on, not for 6" in caplog.text
    monkeypatch.setattr(compiled, "PAYS_FROM", 6)
    kernel, fast = trained(tmp_path / "long")
    assert kernel == "torch.compile"
    assert "torch.compile pays: 6 meta-batches" in caplog.text
    # Six steps of Adam on gradients that differ by float32 roundings.
    for name, leaf in plain.items():
        torch.testing.assert_close(fast[name], leaf, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_compiled_takes_the_plain_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain = trained(tmp_path / "short")
    monkeypatch.setattr(compiled, "PAYS_FROM", 1)

    def broken(*_: Any) -> None:
        raise RuntimeError("no working compiler\nin detail")

    monkeypatch.setattr(compiled, "descend", broken)
    with pytest.warns(RuntimeWarning, match=r"torch.compile failed \(no working compiler\)"):
        kernel, weights = trained(tmp_path / "long")
    assert kernel == "torch"
    assert all(torch.equal(weights[name], leaf) for name, leaf in plain.items())


def test_other_families_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, family = case()
    monkeypatch.setattr(compiled, "PAYS_FROM", 1)
    monkeypatch.setattr(compiled, "descend", lambda *_: None)
    assert compiled.chosen(learner, [family], "cpu")
    assert not compiled.chosen(learner, [family, Attack.__new__(Attack)], "cpu")


@pytest.mark.parametrize(
    ("method", "order", "kernel", "batches", "expected"),
    [
        ("maml", "first", "torch", 9_996, False),
        ("maml", "first", "torch", 10_002, True),
        ("maml", "first", "auto", 10_002, False),
        ("maml", "zeroth", "torch", 10_002, False),
        ("fomaml", "first", "torch", 10_002, False),
        ("lft", "first", "torch", 10_002, False),
    ],
)
def test_long_runs_of_maml_without_native_kernels_compile(
    method: str,
    order: Any,
    kernel: str,
    batches: int,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six meta-batches are an epoch."""
    if kernel == "auto" and native.used("auto", "cpu") == "torch":
        pytest.skip("no compiler")
    tried = []
    monkeypatch.setattr(compiled, "descend", lambda *arguments: tried.append(arguments))
    key = "training" if method == "lft" else "maml"
    changes = {f"experiments__sine__{key}__epochs": batches // 6}
    learner, family = case(method, order, kernel=kernel, **changes)
    assert learner.meta_batches == batches
    assert compiled.chosen(learner, [family], "cpu") is expected
    assert len(tried) == expected
