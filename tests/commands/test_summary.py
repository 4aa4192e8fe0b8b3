"""lft summary: verdict counts, and a run beside the one that git keeps."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lft.commands.summary import lines
from lft.config import Profile
from lft.errors import UsageError
from lft.report.claims import write_claims
from lft.results.digests import record


@pytest.fixture(scope="module")
def run(profile: Profile, results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judged run. Do not change it."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    shutil.copytree(results, folder)
    write_claims(profile, folder)
    return folder


@pytest.fixture
def checkout(run: Path, tmp_path: Path) -> Path:
    """A repository that keeps the run."""
    for name in ("summary.csv", "claims.csv", "claims.json"):
        (tmp_path / "results/tiny").mkdir(parents=True, exist_ok=True)
        shutil.copy(run / name, tmp_path / "results/tiny" / name)
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Keep a run"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def changed(run: Path, target: Path, edit: Callable[[pd.DataFrame], None]) -> Path:
    """A copy of the run with other means."""
    shutil.copytree(run, target)
    frame = pd.read_csv(target / "summary.csv")
    edit(frame)
    frame.to_csv(target / "summary.csv", index=False, na_rep="nan")
    record(target, ["summary.csv"])
    return target


def test_the_same_numbers_are_the_same_run(profile: Profile, run: Path, checkout: Path) -> None:
    first, second, last = lines(profile, run, checkout)
    written = pd.read_csv(run / "claims.csv")
    counted = written[written["kind"] != "check"]["verdict"].value_counts()
    assert f"{counted['supported']} supported" in first
    assert second == "Every number is that of the run kept in git."
    assert str(run / "report.html") in last


def test_a_cell_beyond_the_spread_over_seeds_is_named(
    profile: Profile, run: Path, checkout: Path, tmp_path: Path
) -> None:
    """Means a hundred standard deviations away, and verdicts that follow another claims file."""

    def edit(frame: pd.DataFrame) -> None:
        rows = (frame["method"] == "lft") & (frame["metric"] == "asr")
        rows &= (frame["trained_on"] == "mnist") & (frame["tested_on"] == "mnist")
        frame.loc[rows, "mean"] = 0.1 + 0.001 * frame.loc[rows, "seed"]

    other = changed(run, tmp_path / "other", edit)
    path = other / "claims.json"
    path.write_text(path.read_text().replace('"supported"', '"inconclusive"', 1))
    record(other, ["claims.json"])
    text = "\n".join(lines(profile, other, checkout))
    assert "differs: attack, lft, first order, mnist to mnist, asr: 0.101, kept" in text
    assert "Differs from the kept run beyond the spread over seeds in 1 of" in text
    assert "inconclusive, kept supported" in text


def test_other_seeds_of_the_same_mean_agree(
    profile: Profile, run: Path, checkout: Path, tmp_path: Path
) -> None:
    def edit(frame: pd.DataFrame) -> None:
        frame["mean"] += 1e-6

    other = changed(run, tmp_path / "other", edit)
    text = "\n".join(lines(profile, other, checkout))
    assert "Agrees with the kept run within the spread over seeds: no cell differs." in text
    assert "differs:" not in text
    assert "verdict:" not in text


@pytest.mark.parametrize("kept", [True, False])
def test_without_a_kept_run_it_says_so(
    kept: bool, profile: Profile, run: Path, checkout: Path
) -> None:
    other = profile.model_copy(update={"name": "another"}) if kept else profile
    found = list(lines(other, run, checkout if kept else None))
    assert f"No run of profile {other.name} is kept in git to compare with." in found


def test_a_run_that_has_not_ended_says_what_to_run(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"claims.json is missing; run snakemake reproduce first"):
        list(lines(profile, tmp_path))
