"""Progress: a bar on a terminal, lines in a log, a heartbeat in a file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lft.runtime.progress import BEAT_SECONDS, Heartbeat, track


def test_a_log_has_no_bar_whatever_the_colours(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """FORCE_COLOR makes rich take a file for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with caplog.at_level(logging.INFO), track(2, 0, "training") as progress:
        for loss in (1.0, 0.5):
            progress.advance(loss, loss)
    assert "\x1b" not in capsys.readouterr().err
    assert "training: 2/2, task loss 0.5, best validation 0.5" in caplog.text


def test_a_heartbeat_is_written_now_and_then_and_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 2 s: the first step writes, the second and third are within five seconds of it."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    path, found = tmp_path / "beat.json", []
    with pytest.raises(RuntimeError), track(10, 4, "training", path) as progress:
        for loss in (1.0, 0.5, 0.25, 0.125):
            clock[0] += 2.0
            progress.advance(loss, 0.1)
            found.append(Heartbeat.read(path))
        raise RuntimeError
    assert BEAT_SECONDS == 5.0
    assert [beat and (beat.done, beat.loss, beat.seconds_left) for beat in found] == [
        (5, 1.0, 10.0), (5, 1.0, 10.0), (5, 1.0, 10.0), (8, 0.125, 4.0),
    ]  # fmt: skip
    assert not path.exists()
    assert Heartbeat.read(path) is None


def test_a_heartbeat_that_cannot_be_written_stops_no_training(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with track(2, 0, "training", blocked / "beat.json") as progress:
        progress.advance(1.0, 1.0)
    assert progress.done == 1
