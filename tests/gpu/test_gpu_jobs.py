"""Jobs on a GPU: all of a profile, several at once, and what can be wrong with the GPU."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from jobs import measure_all, report
from places import GPU, needs_gpu
from tiny import profile_values, tiny_profile

from lft.cli import main
from lft.config import load_profile
from lft.storage.json import read_json
from lft.storage.tensors import load_tensors

RUN = ("train", "sine", "sine", "lft")
WEIGHTS = Path("runs/sine/sine/lft-first/seed0/weights.safetensors")


def check_results(results: Path, device: str) -> None:
    with (results / "cells.csv").open() as file:
        assert {row["status"] for row in csv.DictReader(file)} <= {"ok", "not applicable"}
    manifests = list(results.glob("runs/**/run.json"))
    assert manifests
    assert {read_json(path, device=str)["device"] for path in manifests} == {device}


def test_every_job_of_a_profile_runs(tmp_path: Path) -> None:
    profile = tiny_profile(seeds=[0])
    sine = {"sine": profile.experiments["sine"].model_copy(update={"methods": ("maml", "lft")})}
    measure_all(profile.model_copy(update={"experiments": sine, "sources": {}}), tmp_path)
    check_results(tmp_path, "cpu")


@needs_gpu
def test_the_smoke_profile_runs_on_a_gpu(tmp_path: Path) -> None:
    profile = load_profile(Path("smoke")).model_copy(update={"device": GPU})
    measure_all(profile, tmp_path)
    check_results(tmp_path, GPU)
    report(profile, tmp_path)
    assert list(tmp_path.glob("figures/*.pdf"))


# ---------------------------------------------------------------- what can be wrong with the GPU


def outcome(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    """The one line that a command ends with, its exit status being 2."""
    monkeypatch.setattr(sys, "argv", ["lft", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_gpu_without_memory_is_one_line(
    profile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What torch raises when an allocation fails, a library's workspace or the first context."""
    for error, expected in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "this process"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "this process holds 1.0 and"),
        (RuntimeError("CUDA error: out of memory"), "of 8.0 GB this process holds 1.0"),
    ):
        monkeypatch.setattr("lft.meta.train.train_seeds", raiser(error))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(5e9), int(8e9)))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: int(1e9))
        line = outcome(monkeypatch, capsys, *RUN, "--profile", profile)
        assert line.startswith("lft: the GPU is out of memory")
        assert expected in line
    monkeypatch.setattr("lft.meta.train.train_seeds", raiser(RuntimeError("no idea")))
    monkeypatch.setattr(sys, "argv", ["lft", *RUN, "--profile", str(profile)])
    with pytest.raises(RuntimeError, match="no idea"):
        main()


def raiser(error: Exception) -> Callable[..., None]:
    def fail(*arguments: object) -> None:
        raise error

    return fail


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return written(tmp_path, "cpu")


def written(folder: Path, device: str) -> Path:
    """The tiny profile as a file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(profile_values() | {"device": device}))
    return path


OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver\nby downloading and installing a new version"
)


def test_an_old_driver_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", raiser(RuntimeError(OLD_DRIVER)))
    line = outcome(monkeypatch, capsys, *RUN, "--profile", written(tmp_path, "cuda"))
    assert "0 CUDA devices (The NVIDIA driver on your system is too old (found version" in line
    assert line.endswith("; set device: cpu in the profile")


@needs_gpu
def test_the_gpu_that_is_visible_is_used(tmp_path: Path) -> None:
    """In processes of their own: CUDA reads the variable once."""
    profile = written(tmp_path, "cuda")
    done = lft(tmp_path, profile, CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 0, done.stderr
    assert "GPU 0" in done.stderr
    done = lft(tmp_path, profile, CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 2
    assert "this machine has 0 CUDA devices" in done.stderr.splitlines()[-1]


NO_MEMORY = "import torch; torch.cuda.set_per_process_memory_fraction(0.0); "


@needs_gpu
def test_memory_that_runs_out_is_one_line(tmp_path: Path) -> None:
    """In a process of its own: another's allocator has memory that it can give again."""
    done = lft(tmp_path, written(tmp_path, GPU), before=NO_MEMORY)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("lft: the GPU is out of memory: of ")
    assert not list(tmp_path.glob("**/weights.safetensors"))


FILL = """
import sys, torch
torch.cuda.set_device(sys.argv[1])
held = []
for size in (1 << 30, 1 << 24, 1 << 20):
    try:
        while True:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
    except RuntimeError:
        pass
print("full", flush=True)
sys.stdin.read()
"""


@needs_gpu
def test_a_gpu_that_another_process_fills_is_one_line(tmp_path: Path) -> None:
    torch.cuda.empty_cache()
    command = [sys.executable, "-c", FILL, GPU]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout and other.stdout.readline() == "full\n"
            done = lft(tmp_path, written(tmp_path, GPU))
        finally:
            other.kill()
    assert done.returncode == 2, done.stderr
    assert "the GPU is out of memory" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("**/weights.safetensors"))


@needs_gpu
def test_jobs_that_share_a_gpu_give_what_one_alone_gives(tmp_path: Path) -> None:
    profile = written(tmp_path, GPU)
    folders = [tmp_path / str(number) for number in range(3)]
    jobs = [
        subprocess.Popen(command(profile, folder), stderr=subprocess.PIPE) for folder in folders
    ]
    for job in jobs:
        _, errors = job.communicate(timeout=120)
        assert job.returncode == 0, errors
    assert lft(tmp_path / "alone", profile).returncode == 0
    expected, _ = load_tensors(tmp_path / "alone" / WEIGHTS)
    for folder in folders:
        found, _ = load_tensors(folder / WEIGHTS)
        assert all(torch.equal(found[name], leaf) for name, leaf in expected.items())


def command(profile: Path, results: Path, before: str = "") -> list[str]:
    program = f"{before}from lft.cli import main; main()"
    options = ["--profile", str(profile), "--results", str(results)]
    return [sys.executable, "-c", program, *RUN, *options]


def lft(
    results: Path, profile: Path, *, before: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """A training as a job of its own, after some statements."""
    return subprocess.run(
        command(profile, results, before),
        text=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, **environment},
    )
