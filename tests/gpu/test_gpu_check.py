"""What `make gpu-check` consists of, without a GPU; and docs/gpu.md says what was measured."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import check
import pytest
import steps
import tables
import torch
from check import Document, Part

from lft.config import LSTMSettings
from lft.finetuners.lstm import CoordinateLSTM, init_weights
from lft.seeding import generator


@pytest.fixture
def document(tmp_path: Path) -> Document:
    return Document(tmp_path / "here.json")


def parts_of(document: Document) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(document.path.read_text())["parts"]
    return found


def python(name: str, limit: float, program: str) -> Part:
    return Part(name, limit, ["-c", program])


ROWS = "import json, time, sys; print(json.dumps({'a': 1})); print('words'); "


def test_what_a_part_found_before_its_limit_is_kept(document: Document) -> None:
    """A part that hangs with a child of its own, one that fails and one that ends."""
    until = time.monotonic() + 100
    child = "import subprocess; subprocess.run(['sleep', '100'])"
    for part in (
        python("hangs", 5, ROWS + child),
        python("fails", 20, ROWS + "sys.exit(3)"),
        python("ends", 20, ROWS),
    ):
        check.run(part, document, until, dict(os.environ))
    assert {name: (part["status"], part["rows"]) for name, part in parts_of(document).items()} == {
        "hangs": ("ended by its time limit", [{"a": 1}]),
        "fails": ("failed with status 3", [{"a": 1}]),
        "ends": ("ok", [{"a": 1}]),
    }
    assert "words" in document.path.with_suffix(".log").read_text()


def test_no_part_is_begun_without_time_for_it(document: Document) -> None:
    check.run(python("late", 20, ROWS), document, time.monotonic() + 4, {})
    assert parts_of(document)["late"]["status"] == "left out: no time left"


FAILS = """
def test_passes(record_property):
    record_property("distance", 1e-6)

def test_fails():
    assert 1 == 2, "one is not two"
"""


def test_each_test_is_told_as_it_ends(document: Document, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FAILS)
    part = check.tests("parity", 60, "--rootdir", str(tmp_path), str(tmp_path / "test_it.py"))
    part.command.remove(str(check.HERE))
    environment = {**os.environ, "PYTHONPATH": str(check.HERE)}
    check.run(part, document, time.monotonic() + 100, environment)
    found = parts_of(document)["parity"]
    assert found["status"] == "failed with status 1"
    passes, fails = found["rows"]
    assert (passes["test"], passes["outcome"], passes["distance"]) == (
        "test_passes",
        "passed",
        1e-6,
    )
    assert (fails["test"], fails["outcome"]) == ("test_fails", "failed")
    assert "one is not two" in fails["reason"]


@pytest.mark.parametrize("problem", steps.PROBLEMS)
def test_every_problem_is_measured(problem: str) -> None:
    (row,) = steps.rows([problem], [2], "cpu", ["eager"])
    assert "error" not in row
    assert row["gradient_norm"] > 0
    assert row["ns_per_coordinate_step"] > 0


def test_a_step_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out ends neither the part nor the check."""

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate")

    monkeypatch.setattr(steps, "case", fail)
    (row,) = steps.rows(["lstm"], [2], "cpu", ["eager"])
    assert row["error"] == "OutOfMemoryError: CUDA out of memory. Tried"


def test_seeds_side_by_side_are_as_many_alone() -> None:
    settings = LSTMSettings(layers=2, hidden=4)
    each = [init_weights(settings, generator("phi", seed)) for seed in range(3)]
    stacked = {name: torch.stack([weights[name] for weights in each]) for name in each[0]}
    state = torch.randn(2, 2, 3, 4, 7, generator=generator("state"))
    features = torch.randn(3, 2, 7, generator=generator("features"))
    after, update = steps.seeds_step(stacked, settings, state, features)
    for seed, weights in enumerate(each):
        alone, moved = CoordinateLSTM(weights, settings, "torch")._step(
            state[:, :, seed], features[seed]
        )
        # float32: a few dozen products.
        torch.testing.assert_close(after[:, :, seed], alone, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(update[seed], moved, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("problem", ["maml-sine", "maml-cnn"])
def test_what_is_compiled_for_maml_is_its_meta_gradient(
    problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torch.func, not yet compiled, against what meta-training computes."""
    monkeypatch.setattr(steps, "_descent", lambda: steps._descend)
    (loss, gradient), (other_loss, other) = (
        steps.case(problem, 3, "cpu", compiled=compiled).run() for compiled in (False, True)
    )
    # float32, five steps.
    torch.testing.assert_close(loss, other_loss, rtol=1e-4, atol=0)
    assert (gradient - other).norm() < 1e-4 * gradient.norm()


def test_the_page_says_what_was_measured() -> None:
    assert tables.PAGE.read_text() == tables.page()


def test_a_page_can_be_made_of_a_check_that_was_cut_off(document: Document) -> None:
    machine = {"gpu": "H", "multiply_adds_per_second": 1e12, "functions_per_second": 1e12}
    rest = {"copied_bytes_per_second": 1e12, "small_call_seconds": 1e-6}
    document.part("machine", status="ok", seconds=1.0)
    document.row("machine", machine | rest)
    document.part("steps", status="ended by its time limit", seconds=9.0)
    cell = {"problem": "lstm", "tasks": 5, "device": "cuda", "threads": 1}
    times = {"seconds": 0.0198, "ns_per_coordinate_step": 19.8}
    times |= {"kernels": 1500, "busy_seconds": 0.0099}
    document.row("steps", cell | {"mode": "eager"} | times)
    document.row("steps", cell | {"mode": "graph", "error": "OutOfMemoryError: CUDA out of memory"})
    document.part("trainings-cuda", status="left out: no time left")
    document.part("parity-cnn", status="failed with status 1")
    for name, outcome, distance in (("lft", "passed", 2e-6), ("maml", "failed", 2e-3)):
        found = {"outcome": outcome, "distance": distance}
        document.row("parity-cnn", {"test": f"test_a[cnn-{name}-first-cuda:0-float32]"} | found)
    text = tables.render([json.loads(document.path.read_text())])
    # 1,880 and 100 operations at 10¹² a second take 1.98 ns.
    assert "| lstm | 5 |  | 19.8 | memory |  |  |  | 19.8 | 10 | 1,500 | 50 % |" in text
    assert "| so a coordinate's step, forward and back, ns | 1.980 |" in text
    assert "| cuda |  | 0 | cut off |  |" in text
    assert "| parity-cnn | failed with status 1: 1 failed, 1 passed |" in text
    assert "- test_a[cnn-maml-first-cuda:0-float32]: failed" in text
    assert "| cnn | 2e-03 |  |" in text
