"""SHA256SUMS: what was edited by hand is refused by all that reads it, and the advice helps."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from result_folders import built, complete, make, profile, sine
from synthetic import write_results

from lft.commands import claims, jobs, summary
from lft.config import Profile, Run
from lft.errors import UsageError
from lft.results.crate import write_crate
from lft.results.digests import EVALUATION, JOINED, JUDGED, SHOWN, SUMS, check, record

__all__ = ["built", "complete", "make", "profile", "sine"]


@pytest.fixture(scope="module")
def finished(sine: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile and its finished run. Do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "mine.yaml").write_text(yaml.safe_dump(sine.model_dump(mode="json")))
    write_results(sine, folder / "run")
    jobs.report(folder / "mine.yaml", folder / "run")
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    """A copy to edit."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def edit(path: Path) -> None:
    """Another digit near the end of a file, which stays valid."""
    text = path.read_text()
    at = max(map(text.rfind, "12"))
    path.write_text(f"{text[:at]}{'1' if text[at] == '2' else '2'}{text[at + 1 :]}")


def readers(place: Path, profile: Profile) -> dict[str, Callable[[], object]]:
    """Whoever takes numbers or verdicts from the files of a whole run."""
    mine, run = place / "mine.yaml", place / "run"
    return {
        "tables": lambda: jobs.tables(mine, run),
        "figures": lambda: jobs.figures(mine, run),
        "page": lambda: jobs.page(mine, run),
        "summary": lambda: list(summary.lines(profile, run, None)),
        "claims": lambda: claims.as_table(profile, run),
        "crate": lambda: write_crate(profile, run, place / "crate.zip"),
    }


READ = {
    "measurements.csv": ("tables", "figures", "page", "crate"),
    "summary.csv": ("tables", "figures", "page", "summary", "crate"),
    "cells.csv": ("tables", "figures", "page", "crate"),
    "theory.csv": ("tables", "figures", "page", "crate"),
    "claims.json": ("page", "summary", "claims", "crate"),
    "claims.csv": ("page", "crate"),
    "alternatives.csv": ("page",),
    "report.html": ("crate",),
}


def test_edited_files_are_refused_by_their_readers_and_the_advice_helps(
    place: Path, sine: Profile
) -> None:
    refuses = r"was changed after it was written: .*; restore it, or run lft report"
    for name, names in READ.items():
        path = place / "run" / name
        before = path.read_bytes()
        edit(path)
        for reader in names:
            with pytest.raises(UsageError, match=rf"{name} {refuses}"):
                readers(place, sine)[reader]()
        path.write_bytes(before)
    for name in ("summary", "claims", "crate"):  # restored
        readers(place, sine)[name]()
    whole = {path: path.read_bytes() for path in (place / "run").iterdir() if path.is_file()}
    for name in READ:
        edit(place / "run" / name)
    jobs.report(place / "mine.yaml", place / "run")
    assert whole == {path: path.read_bytes() for path in whole}


def test_edited_measurements_of_a_run_are_refused_and_their_restoration_helps(
    place: Path, sine: Profile
) -> None:
    path = place / "run" / Run("sine", "sine", "lft", "first", 0).folder / "measurements.csv"
    record(path.parent, [path.name])
    before = path.read_bytes()
    edit(path)
    reads = (
        lambda: jobs.aggregate(place / "mine.yaml", place / "run"),
        lambda: claims.verdict(sine, place / "run", CLAIM),
        lambda: write_crate(sine, place / "run", place / "crate.zip"),
    )
    for read in reads:
        with pytest.raises(UsageError, match="restore it, or delete it and run the workflow again"):
            read()
    path.write_bytes(before)
    for read in reversed(reads):
        read()


def test_a_run_without_attacks_and_theory_is_packed(place: Path, sine: Profile) -> None:
    """What the profile does not plan is not missed, and what it plans is."""
    none = {"gap": {"experiments": []}, "vanishing": {"experiments": []}}
    values = sine.model_dump(mode="json")
    values["theory"] = {name: values["theory"][name] | none[name] for name in none}
    bare = Profile.model_validate(values)
    for name in ("victims", "theory"):
        shutil.rmtree(place / "run" / name, ignore_errors=True)
    write_crate(bare, place / "run", place / "crate.zip")
    assert (place / "crate.zip").is_file()
    with pytest.raises(UsageError, match="theory is missing: the run is incomplete"):
        write_crate(sine, place / "run", place / "again.zip")


CLAIM = "sine-lft-l2o-first"


def test_verdicts_older_than_the_tables_are_refused(place: Path, sine: Profile) -> None:
    """That lft report helps, which writes both, is seen above."""
    jobs.aggregate(place / "mine.yaml", place / "run")
    for name in ("page", "summary", "claims", "crate"):
        with pytest.raises(UsageError, match=r"claims.json is older than .*, or run lft report"):
            readers(place, sine)[name]()


def test_alternatives_kept_beside_a_run_are_checked_too(place: Path) -> None:
    kept = place / "ablation"
    kept.mkdir()
    shutil.copy(place / "run/alternatives.csv", kept)
    record(kept, ["alternatives.csv"], anew=True)
    (kept / "alternatives.csv").write_text("edited\n")
    with pytest.raises(UsageError, match=r"ablation/alternatives.csv was changed"):
        jobs.page(place / "mine.yaml", place / "run")


def test_the_file_is_one_that_sha256sum_checks(finished: Path) -> None:
    command = ["sha256sum", "--check", "--strict", SUMS]
    done = subprocess.run(command, cwd=finished / "run", check=True, capture_output=True, text=True)
    found = {line.partition(":")[0] for line in done.stdout.splitlines()}
    assert found == {*JOINED, *JUDGED, *SHOWN}


def test_folders_without_digests_are_read(place: Path, sine: Profile) -> None:
    """Those of older versions."""
    (place / "run" / SUMS).unlink()
    edit(place / "run/report.html")
    # The page leaves no file that has its own digests alone.
    for name in ("page", "summary", "claims", "crate"):
        readers(place, sine)[name]()


def test_a_gzipped_file_counts_as_unpacked_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "measurements.csv"
    path.write_text("a,b\n1,2\n")
    record(tmp_path, [path.name], anew=True)
    packed = path.with_name("measurements.csv.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    check(tmp_path, [path.name])
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"cannot read .*csv.gz: it is damaged"):
        check(tmp_path, [path.name])
    packed.write_bytes(gzip.compress(b"a,b\n1,3\n"))
    with pytest.raises(UsageError, match=r"csv.gz was changed after it was written"):
        check(tmp_path, [path.name], EVALUATION)
    packed.unlink()
    check(tmp_path, [path.name])
