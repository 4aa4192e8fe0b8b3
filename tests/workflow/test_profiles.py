"""The profiles that say how jobs run, read by Snakemake, and those that exist to try choices."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from checkout import ROOT, SNAKEMAKE, copy_checkout, edit

from lft.config import Question, load_profile, load_questions


def plan(checkout: Path, *options: str) -> str:
    """What a dry run prints."""
    done = subprocess.run(
        [SNAKEMAKE, "-n", *options],
        cwd=checkout,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("site", ["slurm", "slurm-cpu"])
def test_cluster_profiles_are_understood(site: str, tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path)
    edit(checkout, "methods_per_job: all", "methods_per_job: one")
    options = ("--profile", f"workflow/profiles/{site}", "--config", "profile=smoke")
    planned = plan(checkout, *options)
    groups = re.findall(r"Group job (\w+)", planned)
    assert sorted(groups) == ["evaluate", "evaluate", "report"]  # 18 evaluations, ten a group
    training = re.search(r"rule train:.*?resources: ([^\n]*)", planned, re.S)
    assert training
    partition = {"slurm": "gpu", "slurm-cpu": "short"}[site]
    for asked in ("mem_mb=3000", "runtime=240", f"slurm_partition={partition}", "TERM@120"):
        assert asked in training[1]


def test_no_training_needs_a_source_that_is_only_tested_on(tmp_path: Path) -> None:
    options = ("--workflow-profile", "none", "--config", "profile=transfer")
    planned = plan(copy_checkout(tmp_path), *options)
    inputs = re.findall(r"rule (\w+):\n\s+input: ([^\n]*)", planned)
    for source in ("fashion", "kmnist", "svhn"):
        needed_by = {rule for rule, files in inputs if f"data/{source}.safetensors" in files}
        assert needed_by == {"victim", "evaluate"}


def test_every_shipped_cluster_profile_is_explained() -> None:
    explained = (ROOT / "docs/cluster.md").read_text()
    for profile in (ROOT / "workflow/profiles").iterdir():
        assert f"workflow/profiles/{profile.name}" in explained


@pytest.mark.parametrize("question", load_questions(), ids=lambda question: question.id)
def test_another_choice_is_tried_for_everything_that_the_paper_leaves_open(
    question: Question,
) -> None:
    if question.figures:
        assert list((ROOT / "results/reference/figures").glob(f"{question.figures}-*.svg"))
        return
    tried = [
        variant
        for name in ("ablation", "alternatives")
        for experiment in load_profile(name).experiments.values()
        for variant, settings in experiment.variants.items()
        if f"{next(iter(settings.set))}.".startswith(f"{question.choice}.")
    ]
    assert tried or question.forks
