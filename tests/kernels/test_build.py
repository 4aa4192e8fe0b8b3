"""Building and loading the native kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lft.errors import UsageError
from lft.kernels import build as native


@pytest.fixture
def compiler() -> None:
    if not native.available(torch.device("cpu"), torch.float32):
        pytest.skip("no compiler")


def test_only_float32_on_cpu() -> None:
    assert not native.available(torch.device("cpu"), torch.float64)
    assert not native.available(torch.device("cuda"), torch.float32)


def test_what_is_used_follows_setting_and_device() -> None:
    fused = "fused" if native.available(torch.device("cpu"), torch.float32) else "torch"
    assert native.used("auto", "cpu") == fused
    assert native.used("torch", "cpu") == native.used("auto", "cuda") == "torch"


def test_fused_is_fused_or_an_error() -> None:
    with pytest.raises(UsageError, match="they do not run on cuda; or set kernel: auto"):
        native.used("fused", "cuda")


_FIRST_USE = """
import logging
import torch
from lft.kernels import build as native
from lft.errors import UsageError
logging.basicConfig(level=logging.INFO)
print(native.available(torch.device("cpu"), torch.float32))
print(native.available(torch.device("cpu"), torch.float32))
try:
    print(native.chosen("fused", torch.device("cpu"), torch.float32))
except UsageError as error:
    print(str(error).replace(" ", "_"))
if native.available(torch.device("cpu"), torch.float32):
    from tests.kernels.test_lstm_kernel import Case, assert_close
    case = Case(layers=2, hidden=10, n=70, steps=4)
    _, updates, gradients = case.fused()
    _, expected, expected_gradients = case.reference()
    assert_close(updates, expected)
    for name, gradient in gradients.items():
        assert_close(gradient, expected_gradients[name])
"""


def first_use(cache: Path, **variables: str) -> subprocess.Popen[str]:
    """A process that uses the kernels with another cache folder."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), **variables}
    return subprocess.Popen(
        [sys.executable, "-W", "always", "-c", _FIRST_USE],
        env=environment,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures("compiler")
def test_processes_that_start_together_share_one_build(tmp_path: Path) -> None:
    """Without SIMD flags, so that the code for other CPUs is checked as well."""
    folder = tmp_path / "lft"
    (folder / "build-killed").mkdir(parents=True)
    processes = [first_use(tmp_path, ATEN_CPU_CAPABILITY="default") for _ in range(2)]
    log = ""
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.split() == ["True", "True", "True"]
        log += err
    assert log.count("compiling the native kernels") == log.count("compiled in") == 1
    assert len(list(folder.glob("*.so"))) == 1
    assert [path.name for path in folder.glob("build-*")] == ["build-killed"]


def test_missing_compiler_is_one_warning(tmp_path: Path) -> None:
    out, err = first_use(tmp_path, CXX="/nonexistent").communicate(timeout=60)
    *available, refusal = out.split()
    assert available == ["False", "False"]
    assert "kernel:_fused_was_asked_for" in refusal
    assert "/nonexistent:_not_found" in refusal
    assert "install_g++" in refusal
    assert refusal.endswith("or_set_kernel:_auto")
    assert err.count("Warning") == 1
    assert "/nonexistent: not found" in err
    assert "install g++" in err
    assert not list(tmp_path.rglob("*.so"))
