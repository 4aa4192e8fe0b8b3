"""Jobs side by side take different GPUs, pretended here: no machine with several is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny import tiny_profile

from lft.runtime import device
from lft.runtime.device import claim, use_device

NAMES = ["0", "1", "2"]
HOLD = """
import sys
from pathlib import Path
from lft.runtime.device import claim
print(claim(sys.argv[2:], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@contextmanager
def job(folder: Path, *names: str) -> Iterator[str]:
    """A job in a process of its own that holds a device; what it printed."""
    command = [sys.executable, "-c", HOLD, str(folder), *names]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.kill()


def test_each_job_takes_the_first_free_device(tmp_path: Path) -> None:
    with job(tmp_path, *NAMES) as first:
        with job(tmp_path, *NAMES) as second:
            assert (first, second) == ("0", "1")
            with job(tmp_path, "0", "1") as third:
                assert third == "None"
        with job(tmp_path, *NAMES) as next_one:  # the second was killed: its device is free
            assert next_one == "1"


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A machine with two GPUs; the devices that were made current."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(device, "_held", [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    device._own_gpu.cache_clear()
    yield current
    device._own_gpu.cache_clear()
    torch.use_deterministic_algorithms(False)


def locks(folder: Path) -> Path:
    return folder / f"lft-gpus-{os.getuid()}"


def test_cuda_is_a_free_gpu_and_stays_the_same(tmp_path: Path, pretended: list[int]) -> None:
    with job(locks(tmp_path), "0"):
        for _ in range(2):
            assert use_device(tiny_profile(device="cuda")) == torch.device("cuda")
    assert pretended == [1, 1]


def test_jobs_share_the_first_gpu_when_all_are_held(
    tmp_path: Path, pretended: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with job(locks(tmp_path), "0"), job(locks(tmp_path), "0", "1"):
        use_device(tiny_profile(device="cuda"))
    assert pretended == [0]
    assert "all 2 GPUs are held by other jobs; sharing the first" in caplog.text


def test_a_numbered_gpu_is_taken_as_it_is(tmp_path: Path, pretended: list[int]) -> None:
    assert use_device(tiny_profile(device="cuda:1")) == torch.device("cuda:1")
    assert not pretended
    assert not locks(tmp_path).exists()


def test_gpus_that_a_scheduler_hands_out_go_by_its_names(
    tmp_path: Path, pretended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    with job(locks(tmp_path), "0"), job(locks(tmp_path), "6"):
        use_device(tiny_profile(device="cuda"))
    assert pretended == [1]


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    with job(tmp_path, "0") as held:
        assert held == "0"
        assert claim(["0"], tmp_path) is None
    assert claim(["0"], tmp_path) == 0
