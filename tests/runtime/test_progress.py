"""Progress: a bar on a terminal, lines in a log."""

from __future__ import annotations

import logging

import pytest

from lft.runtime.progress import track


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
