"""lft claims: the list, and the verdict on one claim by what it rests on alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lft.commands import claims
from lft.config import Profile, Run
from lft.errors import UsageError
from lft.report.claims import Verdict, judge, load_claims, write_claims
from lft.report.claims.needed import needed
from lft.report.compare import terminal

CLAIM = "asr-lft-l2o"
THEORY = "theorem-1-sigma"


@pytest.fixture(scope="module")
def judged(profile: Profile, results: Path) -> dict[str, Verdict]:
    """All claims together, as in a report."""
    return {row.claim: row for row in judge(profile, results)}


def test_a_claim_needs_the_runs_of_its_two_cells(profile: Profile) -> None:
    found = needed(profile, CLAIM)
    assert set(found.runs) == {
        Run("attack", "mnist", method, "first", seed)
        for method in ("lft", "l2o")
        for seed in profile.seeds
    }
    assert found.theory == ()
    assert "runs/attack/mnist/l2o-first/seed1/measurements.csv" in found.folder_files
    assert not [name for name in found.folder_files if "maml" in name or "theory" in name]


def test_a_statement_of_the_theory_needs_its_measurements(profile: Profile) -> None:
    found = needed(profile, THEORY)
    assert (found.runs, found.theory) == ((), ("sine",))
    assert found.folder_files == tuple(f"theory/sine-seed{seed}.csv" for seed in profile.seeds)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("asr-lft-l2", "unknown claim 'asr-lft-l2'; did you mean 'asr-lft-l2o'?"),
        ("?", "unknown claim '?'; lft claims lists them"),
    ],
)
def test_an_unknown_claim_is_one_line(profile: Profile, name: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        needed(profile, name)
    assert str(refused.value) == message


def test_a_claim_that_the_profile_cannot_judge_is_refused(sine: Profile) -> None:
    with pytest.raises(UsageError, match="profile 'tiny' does not have attack: lft"):
        needed(sine, CLAIM)


@pytest.mark.parametrize("name", [CLAIM, THEORY])
def test_a_verdict_alone_has_the_numbers_of_the_report(
    name: str, profile: Profile, results: Path, judged: dict[str, Verdict], tmp_path: Path
) -> None:
    """From a folder that holds only its own files, and a damaged one of another method. Its p is at
    least that of the report: what was not looked at counts as larger."""
    for file in needed(profile, name).folder_files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(results / file, tmp_path / file)
    other = tmp_path / Run("attack", "mnist", "sgd", "first", 0).folder / "run.json"
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text("{")
    before = sorted(tmp_path.rglob("*"))
    alone, together = claims.verdict(profile, tmp_path, name), judged[name]
    for field in ("ours", "effect", "low", "high", "n_seeds", "g", "improvement"):
        assert getattr(alone, field) == getattr(together, field), field
    assert alone.p is not None
    assert together.p is not None
    assert alone.p >= together.p
    assert sorted(tmp_path.rglob("*")) == before
    text = "\n".join(claims.as_text(alone))
    assert f"{name}: {together.text}" in text
    assert claims.word(alone) in text


def test_nothing_measured_says_what_to_run(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"snakemake claim --config claim={CLAIM} profile=tiny"):
        claims.verdict(profile, tmp_path, CLAIM)


def test_the_list_has_every_claim_with_verdict_and_cost(
    profile: Profile, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(folder: Path) -> str:
        table = claims.as_table(profile, folder)
        terminal(table).print(table)
        return capsys.readouterr().out

    empty = listed(tmp_path)
    assert all(f" {claim.id} " in empty for claim in load_claims().claims)
    assert empty.count("not judged") == len(load_claims().claims)
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    write_claims(profile, tmp_path)
    full = listed(tmp_path)
    assert "not judged" not in full
    assert "✓ supported" in full
