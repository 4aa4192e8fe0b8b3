"""Every command, with any arguments: it does its work, or refuses in a few lines and writes
nothing."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import profile_values

from lft.cli import app, main

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
TINY = yaml.safe_dump(profile_values())
OTHERS = {"doctor", "open"}
"""One compiles the kernels, the other starts a browser."""
WORDS = (
    "", ".", "..", "-", "--", "-1", "0", "1e9", "nan", "99999999999999999999", "nosuch", "sine",
    "attack", "grey", "lft", "all", "zeroth", "method", "random", "\u00e9 {x} %s", "a\nb",
    "/dev/null", "/proc/nosuch/x", "a" * 300, "--seed", "--order", "--nosuch", "-p", "-r", "-o",
    "--expect", "--help", "--settings", "--name", "tiny.yaml", "bad.yaml", "binary", "folder",
    "folder/binary", "loop",
)  # fmt: skip


@contextlib.contextmanager
def stranger() -> Iterator[Path]:
    """A working folder with a profile, a damaged one, bytes, and a link to itself."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.yaml").write_text(TINY)
        (folder / "bad.yaml").write_text("extends: [")
        (folder / "folder").mkdir()
        for path in (folder / "binary", folder / "folder/binary"):
            path.write_bytes(bytes(range(256)))
        (folder / "loop").symlink_to("loop")
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in OTHERS])
@settings(max_examples=6)
@given(arguments=st.lists(st.sampled_from(WORDS), max_size=6))
def test_any_arguments_are_served_or_refused_and_nothing_is_half_done(
    command: str, arguments: list[str]
) -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        stranger() as folder,
        mock.patch.object(sys, "argv", ["lft", command, *arguments]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        before = content(folder)
        with pytest.raises(SystemExit) as ended:
            main()
        if ended.value.code in (0, None):
            return
        assert ended.value.code == 2
        assert content(folder) == before
    text = stderr.getvalue()
    assert "Traceback" not in text
    own = [line for line in text.splitlines() if line.startswith("lft: ")]
    assert own == text.splitlines()[-1:] or "Error" in text, text
