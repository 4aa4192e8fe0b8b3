"""Building and loading the native kernels."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lft.errors import UsageError
from lft.kernels import build as native


def test_only_float32_on_cpu() -> None:
    assert not native.available(torch.device("cpu"), torch.float64)
    assert not native.available(torch.device("cuda"), torch.float32)


def test_what_is_used_follows_setting_and_device() -> None:
    fused = "fused" if native.available(torch.device("cpu"), torch.float32) else "torch"
    assert native.used("auto", "cpu") == fused
    assert native.used("torch", "cpu") == native.used("auto", "cuda") == "torch"


def test_fused_is_fused_or_an_error() -> None:
    with pytest.raises(UsageError, match="native kernels do not run on cuda; or set kernel: auto"):
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
    from tests.kernels.parity import assert_close
    from tests.kernels.test_lstm_kernel import Case
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
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert out.split() == ["True", "True", "True"]
        log += err
    assert log.count("compiling the native kernels") == log.count("compiled in") == 1
    assert len(list(folder.glob("*.so"))) == 1
    assert [path.name for path in folder.glob("build-*")] == ["build-killed"]


def test_missing_compiler_is_one_warning_and_remembered(tmp_path: Path) -> None:
    for log in ("compiling the native kernels", ""):
        out, err = first_use(tmp_path, CXX="/nonexistent").communicate(timeout=60)
        *available, refusal = out.split()
        assert available == ["False", "False"]
        assert "kernel:_fused_cannot_be_used" in refusal
        assert "/nonexistent:_not_found" in refusal
        assert "install_g++" in refusal
        assert refusal.endswith("or_set_kernel:_auto")
        assert err.count("Warning") == 1
        assert "/nonexistent: not found" in err
        assert "install g++" in err
        assert ("compiling" in err) == bool(log)
        assert not list(tmp_path.rglob("*.so"))


class Compiler:
    """Stands in for the compiler: counts its calls, and fails with a text if it has one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.failure = 0, ""
        self.loaded: list[Path] = []
        monkeypatch.setattr(native, "_compile", self.compile)
        monkeypatch.setattr(torch.ops, "load_library", self.loaded.append)

    def compile(self, folder: Path, flags: tuple[str, ...]) -> None:
        self.calls += 1
        if self.failure:
            raise RuntimeError(self.failure)
        (folder / "kernels.so").touch()

    def problem(self) -> str:
        """What a new process is told, once."""
        native._problem.cache_clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return native._problem()


@pytest.fixture
def compiler_stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Compiler]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield Compiler(monkeypatch)
    native._problem.cache_clear()


def test_a_cache_that_cannot_be_used_gives_way_to_a_private_folder(
    compiler_stub: Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/x")
    assert not compiler_stub.problem()
    assert not compiler_stub.problem()
    first, second = compiler_stub.loaded
    assert first == second
    assert first.parent == tmp_path / "temporary" / f"lft-{os.getuid()}"
    assert first.parent.stat().st_mode & 0o777 == 0o700
    assert compiler_stub.calls == 1


def test_without_locks_every_process_may_build(
    compiler_stub: Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert not compiler_stub.problem()
    assert compiler_stub.loaded[0].is_relative_to(tmp_path / "temporary")


def test_no_folder_at_all_is_not_the_compilers_fault(
    compiler_stub: Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/x")
    (tmp_path / "temporary" / f"lft-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / "temporary" / f"lft-{os.getuid()}").chmod(0o777)  # anybody could plant a library
    problem = compiler_stub.problem()
    assert "/proc/x/lft (No such file or directory)" in problem
    assert "not a folder of this user alone" in problem
    assert "XDG_CACHE_HOME" in problem
    assert "compiler" not in problem
    assert not compiler_stub.calls


def test_a_compilers_failure_is_remembered_until_it_is_another_or_the_note_is_deleted(
    compiler_stub: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler_stub.failure = "In file included\nlstm.cpp:3:1: error: no such thing"
    problem = compiler_stub.problem()
    assert "error: no such thing" in problem
    assert "C++20 compiler" in problem
    assert compiler_stub.problem() == problem
    assert compiler_stub.calls == 1
    compiler_stub.failure = ""
    assert compiler_stub.problem() == problem
    Path(problem.rsplit("delete ")[1]).unlink()
    assert not compiler_stub.problem()
    assert compiler_stub.calls == 2

    compiler_stub.loaded[0].unlink()
    compiler_stub.failure = "error: again"
    assert "again" in compiler_stub.problem()
    compiler_stub.failure = ""
    monkeypatch.setenv("CXX", "clang++")
    assert not compiler_stub.problem()


def test_a_full_disk_is_not_the_compilers_fault(compiler_stub: Compiler) -> None:
    compiler_stub.failure = "fatal error: error writing to x.s: No space left on device"
    problem = compiler_stub.problem()
    assert problem.count("No space left on device") == 2
    assert "XDG_CACHE_HOME" in problem
    assert "g++" not in problem
    compiler_stub.failure = ""
    assert not compiler_stub.problem()
