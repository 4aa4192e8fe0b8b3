"""What the Snakemake workflow catalog asks of a repository, checked in a bare checkout."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, SNAKEMAKE, copy_checkout

from lft.config import Profile

CONFIG_README = (ROOT / "config/README.md").read_text()


@pytest.mark.parametrize("profile", ["quick", "paper", "multiverse"])
def test_the_linter_passes_without_data_or_an_installed_package(
    profile: str, tmp_path: Path
) -> None:
    """Jobs of all seeds and methods, jobs of one, and universes: the rules' branches."""
    copy_checkout(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/lft.py").write_text("raise ImportError('not the checkout')")
    done = subprocess.run(
        [str(SNAKEMAKE), "--lint", "--config", f"profile={profile}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "broken")},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_target_means_the_report() -> None:
    done = subprocess.run(
        [str(SNAKEMAKE), "--dry-run", "--forceall", "--quiet", "rules", "--nolock",
         "--config", "profile=smoke"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    planned = {name.partition("_")[0] for name in re.findall(r"^(\w+) +\d+$", done.stdout, re.M)}
    assert {"train", "evaluate", "page"} <= planned


def test_the_catalog_finds_its_files() -> None:
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert any(usage["software-stack-deployment"].values())
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    assert (ROOT / "workflow/Snakefile").is_file()  # of a folder workflow/, no other is looked for


def test_the_configuration_is_described() -> None:
    described = set(re.findall(r"`([a-z_-]+)`", CONFIG_README))
    assert described >= set(Profile.model_fields)
    assert described >= {path.stem for path in ROOT.glob("workflow/config/*.yaml")}
