"""How the rules' commands are run: paths with spaces and braces, failures, other environments."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import SNAKEMAKE, copy_checkout

CONDA = """#!/bin/sh
case "$*" in
*config*) echo '{"get": {"channel_priority": "strict"}}';;
*--json*) echo '{"platform": "linux-64", "conda_prefix": "/x", "channel_priority": "strict"}';;
*) echo 'conda 24.9.1';;
esac
"""
"""Answers what Snakemake asks conda before it plans."""


def run(folder: Path, *command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        env={**os.environ, **variables},
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout") / "my {check} out")


def test_spaces_and_braces_in_every_path(checkout: Path) -> None:
    (checkout / "my dir").mkdir()
    profile = checkout / "my dir/{mine}.yml"
    profile.write_text("extends: smoke\nname: mine\n")
    (checkout / "my venv").symlink_to(Path(sys.executable).parents[1])
    target = "results/mine/data/mnist.safetensors"
    done = run(
        checkout, "my venv/bin/python", "-m", "snakemake", "--cores", "1",
        "--config", f"profile={profile.relative_to(checkout)}", "--", target,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert (checkout / target).is_file()


def test_a_report_that_fails_is_a_failure(checkout: Path) -> None:
    options = ("--cores", "1", "--config", "profile=smoke")
    done = run(checkout, SNAKEMAKE, *options, "--", "report")
    assert done.returncode == 1
    assert "lft: nothing has been measured in results/smoke yet" in done.stdout
    assert "Error in rule report" in done.stdout


def test_the_environment_that_snakemake_makes_is_used(checkout: Path, tmp_path: Path) -> None:
    conda = tmp_path / "conda"
    conda.write_text(CONDA)
    conda.chmod(0o755)
    command = (SNAKEMAKE, "-n", "-p", "--config", "profile=smoke", "--")
    target = "results/smoke/data/mnist.safetensors"
    path = f"{tmp_path}:{os.environ['PATH']}"
    planned = run(checkout, *command[:3], "--sdm", "conda", *command[3:], target, PATH=path)
    assert "exec lft data mnist" in planned.stdout, planned.stdout
    planned = run(checkout, *command, target)
    assert re.search(r"exec \S+/bin/python\S* -m lft data mnist", planned.stdout), planned.stdout


def test_a_misspelt_setting_stops_before_planning(checkout: Path) -> None:
    done = run(checkout, SNAKEMAKE, "-n", "--config", "profle=smoke")
    assert done.returncode == 1
    assert "unknown key 'profle'; did you mean 'profile'?" in done.stdout
    assert "Job stats" not in done.stdout
