"""A checkout of which a part is missing: one line, whose advice brings the part back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from checkout import SNAKEMAKE, copy_checkout

from lft import paths
from lft.commands.options import load
from lft.errors import UsageError
from lft.paths import PARTS


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_checkout(tmp_path_factory.mktemp("partial") / "checkout")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "All of it"],
    ):
        subprocess.run(["git", "-C", folder, *command], check=True)
    return folder


def follow(advice: str, folder: Path) -> None:
    """Run the command that a line names."""
    found = re.search(r"git checkout -- [\w/ ]+", advice)
    assert found is not None, advice
    subprocess.run(found[0].split(), cwd=folder, check=True)


@pytest.mark.parametrize("part", PARTS)
def test_a_command_names_the_part_and_the_advice_brings_it_back(
    part: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "CHECKOUT", repository)
    shutil.rmtree(repository / part)
    with pytest.raises(UsageError, match=rf"checkout lacks {part}; git checkout") as caught:
        load(Path("smoke"), None)
    follow(str(caught.value), repository)
    assert load(Path("smoke"), None)[0].name == "smoke"


@pytest.mark.parametrize("part", ["report_templates", "lft"])
def test_the_workflow_says_it_before_planning(part: str, repository: Path, tmp_path: Path) -> None:
    """Without lft, its settings cannot even be read: the installed one is hidden here."""
    (tmp_path / "lft.py").write_text('raise ModuleNotFoundError("No module lft", name="lft")')

    def plan() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [SNAKEMAKE, "-n", "--quiet", "--config", "profile=smoke"],
            cwd=repository, env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    shutil.rmtree(repository / part)
    done = plan()
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "WorkflowError" in done.stdout
    follow(done.stdout, repository)
    assert plan().returncode == 0
