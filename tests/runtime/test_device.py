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

from lft.errors import UsageError
from lft.runtime import device
from lft.runtime.device import claim, find_device, settings

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

    class Current:
        def __init__(self, found: torch.device) -> None:
            current.append(found.index)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(device, "_held", [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    device._own_gpu.cache_clear()
    yield current
    device._own_gpu.cache_clear()


def locks(folder: Path) -> Path:
    return folder / f"lft-gpus-{os.getuid()}"


def test_cuda_is_a_free_gpu_and_stays_the_same(tmp_path: Path, pretended: list[int]) -> None:
    with job(locks(tmp_path), "0"):
        for _ in range(2):
            with settings(tiny_profile(device="cuda")) as found:
                assert found == torch.device("cuda:1")
                assert torch.are_deterministic_algorithms_enabled()
            assert not torch.are_deterministic_algorithms_enabled()
    assert pretended == [1, 1]


def test_jobs_share_the_first_gpu_when_all_are_held(
    tmp_path: Path, pretended: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with job(locks(tmp_path), "0"), job(locks(tmp_path), "0", "1"):
        assert find_device("cuda") == torch.device("cuda:0")
    assert "all 2 GPUs are held by other jobs; sharing the first" in caplog.text


def test_a_numbered_gpu_is_taken_as_it_is(tmp_path: Path, pretended: list[int]) -> None:
    assert find_device("cuda:1") == torch.device("cuda:1")
    assert not locks(tmp_path).exists()


def test_gpus_that_a_scheduler_hands_out_go_by_its_names(
    tmp_path: Path, pretended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    with job(locks(tmp_path), "0"), job(locks(tmp_path), "6"):
        assert find_device("cuda") == torch.device("cuda:1")


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    with job(tmp_path, "0") as held:
        assert held == "0"
        assert claim(["0"], tmp_path) is None
    assert claim(["0"], tmp_path) == 0


def test_cuda_that_is_absent_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="'cuda' was asked for, but this machine has 0 CUDA"):
        find_device("cuda")


def test_settings_of_torch_are_put_back() -> None:
    """Also where the block fails, and whatever the caller had set."""
    small = torch.full((100,), 1e-30)
    before = torch.get_num_threads()
    try:
        for threads, flush in ((2, True), (1, False)):
            torch.set_num_threads(threads)
            torch.set_flush_denormal(flush)
            with (
                pytest.raises(ZeroDivisionError),
                settings(tiny_profile(threads=3 - threads)) as found,
            ):
                assert found.type == "cpu"
                assert torch.get_num_threads() == 3 - threads
                assert not (small * 1e-10).any()
                raise ZeroDivisionError
            assert torch.get_num_threads() == threads
            assert bool((small * 1e-10).all()) is not flush
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
