"""Manifests: the commit on record, old files, and settings that are others."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lft.config import load_profile
from lft.errors import UsageError
from lft.results import manifest as module
from lft.results.folder import Results
from lft.results.manifest import RunManifest, manifest
from lft.results.registered import registered_digest
from lft.storage.json import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "results/ablation/runs/sine/sine/lft-first/seed0/run.json"
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Runs git in a folder, with an author and without the user's settings."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")

    def run(folder: Path, *arguments: str) -> str:
        command = ["git", "-C", str(folder), *author, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return run


@pytest.fixture(autouse=True)
def said_again() -> Iterator[None]:
    module._say_once.cache_clear()
    yield
    module._say_once.cache_clear()


def recorded(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.setattr(module, "CHECKOUT", checkout)
    content = manifest({})
    return content["commit"], content["modified"]


def test_a_checkout_of_its_own_is_recorded(
    tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("x")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert recorded(tmp_path, monkeypatch) == (commit, False)
    (tmp_path / "file").write_text("y")
    assert recorded(tmp_path, monkeypatch) == (commit, True)


def test_the_commit_of_a_repository_around_the_checkout_is_not_its_own(
    tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "thesis", "--allow-empty")
    inner = tmp_path / "lft-bench"
    inner.mkdir()
    with caplog.at_level(logging.WARNING):
        assert recorded(inner, monkeypatch) == (None, None)
        assert recorded(inner, monkeypatch) == (None, None)
    assert len(caplog.records) == 1
    assert f"no commit is recorded: {inner} is a part of the repository" in caplog.text


@pytest.mark.parametrize("refusal", ["fatal: detected dubious ownership", None])
def test_where_git_does_not_answer_nothing_is_known(
    refusal: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if refusal:
        program = tmp_path / "git"
        program.write_text(f"#!/bin/sh\necho '{refusal}' >&2\nexit 128\n")
        program.chmod(0o755)
    with caplog.at_level(logging.WARNING):
        assert recorded(tmp_path, monkeypatch) == (None, None)
    assert (refusal or "No such file or directory: 'git'") in caplog.text


def test_a_wheel_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKOUT", None)
    assert (manifest({})["commit"], manifest({})["modified"]) == (None, None)


def test_results_that_a_run_rewrites_are_no_changes(
    tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    kept, code = tmp_path / "results/quick/summary.csv", tmp_path / "lft.py"
    for path in (kept, code):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "a run")
    kept.write_text("2\n")
    commit, modified = recorded(tmp_path, monkeypatch)
    assert commit and modified is False
    code.write_text("2\n")
    assert recorded(tmp_path, monkeypatch) == (commit, True)


def test_facts_settings_and_provenance() -> None:
    content = manifest({"steps": 3}, status="ok")
    assert content["status"] == "ok"
    assert content["settings"] == {"steps": 3}
    assert content["versions"]["torch"]
    assert content["machine"]["cores"] == os.cpu_count()
    assert content["machine"]["processor"]
    assert content["claims"] == registered_digest()


def test_a_kept_manifest_of_an_older_version_is_read() -> None:
    found = RunManifest.read(KEPT)
    assert (found.run.method, found.status, found.kernel) == ("lft", "ok", "fused")
    assert found.claims is None
    profile = load_profile("ablation")
    assert found.difference(profile.training_inputs(found.run)) is None


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    content = read_json(KEPT)
    for key in ("status", "seconds", "commit", "versions", "settings"):
        path = tmp_path / "run.json"
        write_json(path, {name: value for name, value in content.items() if name != key})
        with pytest.raises(UsageError, match=rf"run\.json: '{key}' is missing; delete the file"):
            RunManifest.read(path)
    write_json(path, content | {"seconds": "three"})
    with pytest.raises(UsageError, match=r"run\.json: seconds: .*; delete the file"):
        RunManifest.read(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"new": 1}, None),  # a setting that did not exist then
        ({"rate": 0.1}, "rate 0.5, the profile says 0.1"),
        ({"deep": {"er": [1, 2]}}, "deep.er [1], the profile says [1, 2]"),
        ({"deep": {}}, None),  # a setting that does not exist any more
        ({"deep": None}, "deep {'er': [1]}, the profile says None"),
    ],
)
def test_the_first_setting_that_is_another_is_named(
    change: dict[str, Any], expected: str | None
) -> None:
    made = RunManifest.read(KEPT).model_copy(
        update={"settings": {"rate": 0.5, "deep": {"er": [1]}}}
    )
    assert made.difference(made.settings | change) == expected


@pytest.mark.parametrize("name", ["reference", "ablation", "alternatives", "supplement"])
def test_the_kept_runs_were_made_under_the_shipped_settings(name: str) -> None:
    found = list(Results(load_profile(name), ROOT / "results" / name).manifests())
    assert len(found) >= 60


def test_a_checkout_keeps_its_line_ends(
    tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With core.autocrlf, as git is set up on Windows."""
    source, clone = tmp_path / "source", tmp_path / "clone"
    source.mkdir()
    git(source, "init", "-q")
    shutil.copy(ROOT / ".gitattributes", source)
    (source / "rows.csv").write_bytes(b"a\nb\n")
    (source / "packed.gz").write_bytes(b"\x00a\r\nb\n")
    git(source, "add", ".")
    git(source, "commit", "-qm", "first")
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "-q", str(source), str(clone))
    for name in ("rows.csv", "packed.gz"):
        assert (clone / name).read_bytes() == (source / name).read_bytes()
