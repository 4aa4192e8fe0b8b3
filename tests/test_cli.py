"""The command line: what a user can cause ends in one line and exit status 2."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny import profile_values

from lft.cli import main


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(profile_values()))
    return path


def outcome(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str]:
    """Exit status and standard error of a command."""
    monkeypatch.setattr(sys, "argv", ["lft", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capsys.readouterr().err


WRONG = {
    "experiment": (
        ["train", "sin", "sine", "lft"],
        "unknown experiment 'sin'; did you mean 'sine'",
    ),
    "mixture": (["train", "sine", "grey", "lft"], "trained on 'grey' is not in sine"),
    "method": (["train", "sine", "sine", "ltf"], "method 'ltf' is not in sine; did you mean 'lft'"),
    "order": (["train", "attack", "grey+colour", "lft", "--order", "zeroth"], "order 'zeroth'"),
    "seed": (["train", "sine", "sine", "lft", "--seed", "7"], "seed '7' is not in sine"),
    "source": (["data", "gray"], "unknown source 'gray'; did you mean 'grey'?"),
    "images": (["victim", "grey"], "data/grey.safetensors is missing; run the step that writes it"),
    "training": (["evaluate", "sine", "sine", "lft"], "run.json: No such file or directory"),
    "not applicable": (["train", "attack", "grey+colour", "maml"], "MAML meta-learns one initial"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_a_user_gets_wrong_is_one_line(
    case: str,
    profile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, expected = WRONG[case]
    options = ("--profile", profile, "--results", tmp_path / "results")
    status, errors = outcome(monkeypatch, capsys, *arguments, *options)
    assert status == 2
    assert errors.startswith("lft: ")
    assert expected in errors
    assert len(errors.splitlines()) == 1
    torch.use_deterministic_algorithms(False)


def test_an_absent_extra_is_one_line(
    profile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for name in ("lft.report.page", "lft.report.tables", "lft.report.templates"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    status, errors = outcome(monkeypatch, capsys, "page", "--profile", profile)
    assert (status, errors) == (2, "lft: this needs jinja2; pip install 'lft[report]'\n")


def test_an_absent_profile_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "absent.yaml"
    status, errors = outcome(monkeypatch, capsys, "train", "a", "b", "c", "--profile", path)
    assert status == 2
    assert errors.startswith(f"lft: there is neither a file {path} nor a profile of that name; ")
    assert len(errors.splitlines()) == 1
