"""Checkpoints: the last two are kept, damage is passed over, other settings are refused."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from lft.errors import UsageError
from lft.storage.checkpoint import Checkpoints, watch_for_stop


def saved(folder: Path, *steps: int, settings: str = "hash") -> Checkpoints:
    checkpoints = Checkpoints(folder, settings)
    for step in steps:
        checkpoints.save(step, {"w": torch.full((2000,), float(step))}, {"history": [[step, 0.1]]})
    return checkpoints


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_loaded_where_nothing_was_saved(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "absent", "hash").load() is None


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 8, 9, 10, 11)
    assert names(tmp_path) == ["step-00000010.safetensors", "step-00000011.safetensors"]
    tensors, info = checkpoints.load()
    assert tensors["w"][0] == info["step"] == 11
    assert info["history"] == [[11, 0.1]]


@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "empty", "pickle"])
def test_a_damaged_one_is_named_and_the_one_before_it_loaded(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    path = tmp_path / "step-00000002.safetensors"
    content = bytearray(path.read_bytes())
    flipped = content.copy()
    flipped[-1000] ^= 4
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "bit flipped": flipped,
            "empty": b"",
            "pickle": pickle.dumps([1, 2]),
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        loaded = checkpoints.load()
    assert loaded is not None
    assert loaded[1]["step"] == 1
    assert str(path) in caplog.text
    # Were it kept, it would count as one of the last two and push good ones out.
    assert names(tmp_path) == ["step-00000001.safetensors"]


def test_all_damaged_means_starting_anew(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    for path in tmp_path.iterdir():
        path.write_bytes(b"x")
    assert checkpoints.load() is None


def test_a_kill_during_a_write_leaves_an_orphan_that_is_removed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    (tmp_path / ".step-00000003.a1b2c3.safetensors").write_bytes(b"half")
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded[1]["step"] == 2
    assert names(tmp_path) == ["step-00000001.safetensors", "step-00000002.safetensors"]


def test_an_orphan_has_the_name_that_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process killed between writing and renaming, played by a replace that never happens."""
    checkpoints = saved(tmp_path, 1)
    for method in ("replace", "unlink"):
        monkeypatch.setattr(Path, method, lambda *arguments, **options: None)
    saved(tmp_path, 2)
    monkeypatch.undo()
    assert len(names(tmp_path)) == 2
    assert checkpoints.load() is not None
    assert names(tmp_path) == ["step-00000001.safetensors"]


def test_what_cannot_be_read_now_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system that fails for a moment must not cost a checkpoint."""
    checkpoints = saved(tmp_path, 1, 2)

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("lft.storage.tensors.safe_open", fail)
    with pytest.raises(UsageError, match=r"cannot read .*step-00000002.*: Input/output error"):
        checkpoints.load()
    monkeypatch.undo()
    assert len(names(tmp_path)) == 2
    assert checkpoints.load() is not None


def test_other_settings_are_refused_and_the_checkpoint_stays(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    with pytest.raises(UsageError, match="was made under other settings; restore them, or delete"):
        Checkpoints(tmp_path, "other hash").load()
    assert len(names(tmp_path)) == 2


def test_a_full_disk_is_one_line_and_the_older_checkpoint_stays(
    tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    Checkpoints(tmp_path, "hash").save(1, {"w": torch.zeros(3)}, {})
    with pytest.raises(UsageError, match="cannot write"), largest_file(4096):
        saved(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001.safetensors"]


def test_clearing_removes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    saved(folder, 1).clear()
    assert not folder.exists()
    Checkpoints(folder, "hash").clear()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_a_flag_inside_the_block_only(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with watch_for_stop() as stop:
        assert not stop.received
        os.kill(os.getpid(), number)
        assert stop.received
        assert stop.number == number
    assert signal.getsignal(number) is before


def test_the_second_ctrl_c_ends_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), watch_for_stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_thread_has_no_signals() -> None:
    received = []

    def work() -> None:
        with watch_for_stop() as stop:
            received.append(stop.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert received == [False]
