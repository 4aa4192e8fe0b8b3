"""The command line: what a user can cause ends in one line and exit status 2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import changed, profile_values

from lft.cli import main
from lft.config import Run, load_profile
from lft.errors import Interrupted
from lft.results.jobs import planned


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
    "training": (
        ["evaluate", "sine", "sine", "lft"],
        "run.json is missing: the run",
    ),
    "universe": (["universe", "show", "sine", "1"], "profile 'tiny' has no universes"),
    "no measurements": (["tables"], "summary.csv is missing; lft report makes it from what"),
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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_has_the_status_of_its_signal(
    number: signal.Signals,
    status: int,
    profile: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*arguments: object) -> None:
        raise Interrupted("stopped after meta-batch 3 of 6; checkpoint saved", number)

    monkeypatch.setattr("lft.meta.train.train_seeds", stop)
    found = outcome(monkeypatch, capsys, "train", "sine", "sine", "lft", "--profile", profile)
    assert found == (status, "lft: stopped after meta-batch 3 of 6; checkpoint saved\n")


def test_what_a_terminal_cannot_show_becomes_a_question_mark(tmp_path: Path) -> None:
    """An error that names a file with a minus sign that Latin-1 does not have."""
    command = [sys.executable, "-m", "lft", "cost", "results", "--profile", "\u2212\u00e9.yaml"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 2
    assert b"there is neither a file ?\xe9.yaml nor" in done.stderr


def test_a_job_refuses_settings_that_were_not_planned(
    profile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [Run("sine", "sine", "sgd", "first", 0)]
    digest = planned(load_profile(profile), "train", runs=runs)
    command = ["train", "sine", "sine", "sgd", "-p", profile, "-r", tmp_path / "results"]
    sizes = {"sgd": [0.5], "adam": [0.01]}
    values = changed(profile_values(), experiments__sine__step_sizes=sizes)
    profile.write_text(yaml.safe_dump(values))
    status, errors = outcome(monkeypatch, capsys, *command, "--settings", digest)
    assert (status, errors) == (
        2,
        "lft: profile 'tiny' was changed after this job was planned; restore it, or start the "
        "workflow again\n",
    )


def test_the_profile_of_a_result_folder_is_that_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From inside, too; a link's name counts; and another name says what to do."""
    folder, link = tmp_path / "renamed", tmp_path / "smoke"
    folder.mkdir()
    link.symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    status, errors = outcome(monkeypatch, capsys, "cost", "smoke")
    assert (status, "no job of profile smoke has run in smoke" in errors) == (2, True)
    status, errors = outcome(monkeypatch, capsys, "cost", "renamed")
    assert (status, errors.endswith("; name that of renamed with --profile\n")) == (2, True)
    (tmp_path / "quick").mkdir()
    monkeypatch.chdir(tmp_path / "quick")
    status, errors = outcome(monkeypatch, capsys, "cost", ".")
    assert (status, "no job of profile quick has run in ." in errors) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compare", "nowhere", "nowhere"], "nowhere has no summary.csv; lft report makes it"),
        (["cost", "nowhere"], "there is no folder nowhere; name a result folder"),
        (["crate", "nowhere"], "there is no folder nowhere; name a result folder"),
        (
            ["export", "nowhere", "sine", "sine", "lft", "--name", "../mine"],
            "--name '../mine' is not a file name; give the file with --output",
        ),
    ],
)
def test_a_folder_or_name_that_cannot_be_is_one_line(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, errors = outcome(monkeypatch, capsys, *arguments)
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith(f"lft: {expected}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("arguments", [["card"], ["--help"]])
def test_output_to_a_full_disk_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "lft", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    expected = "lft: cannot write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_a_reader_that_has_left_is_no_error() -> None:
    command = [sys.executable, "-m", "lft", "card", "lft-mnist+cifar10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_folder_that_was_deleted_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    status, errors = outcome(monkeypatch, capsys, "card")
    expected = "lft: this folder was deleted; change to one that exists\n"
    assert (status, errors) == (2, expected)


def test_a_library_that_does_not_load_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: object) -> None:
        raise ImportError("libx.so: failed to map segment from shared object")

    monkeypatch.setattr("lft.config.load_profile", load)
    status, errors = outcome(monkeypatch, capsys, "data", "grey")
    assert (status, errors.count("\n")) == (2, 1)
    assert "libx.so: failed to map segment" in errors
    assert "run lft doctor" in errors
