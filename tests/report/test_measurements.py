"""measurements.csv in pieces, and verdicts of a run that is kept without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lft.config import Profile
from lft.errors import UsageError
from lft.report import measurements
from lft.report.claims import judge
from lft.report.effects import Measured

KEPT = {
    "claim", "status", "verdict", "ours", "effect", "low", "high", "interval", "n_seeds", "n_for",
    "p", "p_equivalence", "g", "a_at_floor", "b_at_floor", "seeds_needed", "detectable",
}  # fmt: skip
"""Of a verdict, what the means over test tasks decide."""


@pytest.fixture(autouse=True)
def _read_afresh() -> None:
    measurements._groups.cache_clear()


@pytest.fixture
def shuffled(results: Path, tmp_path: Path) -> Path:
    """The same rows with the tasks of each cell in another order, so that blocks meet them in
    another order as well."""
    frame = pd.read_csv(results / "measurements.csv").sample(frac=1, random_state=3)
    frame.to_csv(tmp_path / "measurements.csv", index=False, na_rep="nan")
    return tmp_path / "measurements.csv"


@pytest.mark.parametrize("block", [1 << 12, 1 << 24])
def test_blocks_make_the_cubes_that_the_whole_file_makes(
    profile: Profile, results: Path, shuffled: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "BLOCK", block)
    for name in ("cells.csv", "summary.csv"):
        (shuffled.parent / name).write_bytes((results / name).read_bytes())
    measured = Measured(profile, shuffled.parent, ["asr"])
    frame = pd.read_csv(results / "measurements.csv")
    frame = frame[frame["experiment"] == "attack"]
    for method in ("lft", "l2o"):
        cell = ("mnist", "mnist+cifar10", method, "first")
        cube = measured.cube("attack", cell, "asr")
        assert cube is not None
        wanted = frame[
            (frame["trained_on"] == "mnist") & (frame["tested_on"] == "mnist+cifar10")
            & (frame["method"] == method) & (frame["metric"] == "asr") & (frame["step"] == 10)
        ].pivot_table(index="seed", columns="task", values="value")  # fmt: skip
        # Tasks in one order for all cells, by which they are paired.
        assert list(cube.tasks) == sorted(wanted.columns)
        assert cube.at(10) == pytest.approx(wanted[sorted(wanted.columns)].to_numpy())


def test_only_what_is_asked_for_is_kept(results: Path) -> None:
    groups = measurements.measured_groups(results / "measurements.csv", frozenset({"asr"}))
    assert {key[-1] for key in groups} == {"asr"}
    assert {tuple(sorted(rows)) for rows in groups.values()} == {("seed", "step", "task", "value")}


def test_a_damaged_row_is_named_by_its_line(results: Path, tmp_path: Path) -> None:
    path = tmp_path / "measurements.csv"
    lines = (results / "measurements.csv").read_text().splitlines()
    path.write_text("\n".join([*lines[:7], lines[7].rpartition(",")[0] + ",much", *lines[8:]]))
    with pytest.raises(UsageError, match="line 8: value is 'much', not a number"):
        measurements.measured_groups(path, frozenset({"asr"}))
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="line 1: expected the columns"):
        measurements.measured_groups(path, frozenset({"asr"}))
    path.unlink()
    with pytest.raises(UsageError, match="cannot read"):
        measurements.measured_groups(path, frozenset({"asr"}))


def kept(profile: Profile, results: Path, folder: Path) -> Path:
    """A result folder without measurements."""
    for name in ("cells.csv", "summary.csv", "theory.csv"):
        (folder / name).write_bytes((results / name).read_bytes())
    return folder


def test_a_run_kept_without_measurements_gets_the_same_verdicts(
    profile: Profile, results: Path, tmp_path: Path
) -> None:
    whole = judge(profile, results)
    means = judge(profile, kept(profile, results, tmp_path))
    assert sum(row.verdict == "supported" for row in means) > 20
    for first, second in zip(whole, means, strict=True):
        for name in sorted(KEPT):
            expected, found = getattr(first, name), getattr(second, name)
            # summary.csv keeps seven digits of the means; p-values amplify what is lost.
            exact = not isinstance(expected, float)
            assert found == (expected if exact else pytest.approx(expected, rel=1e-3)), name
        assert (second.improvement, second.bootstrap_low) == (None, None)


def test_without_measurements_diverged_tasks_cannot_be_judged(
    profile: Profile, results: Path, tmp_path: Path
) -> None:
    folder = kept(profile, results, tmp_path)
    summary = pd.read_csv(folder / "summary.csv")
    summary.loc[summary.index[summary["metric"] == "asr"][0], ["mean", "std"]] = np.nan
    summary.to_csv(folder / "summary.csv", index=False, na_rep="nan")
    with pytest.raises(UsageError, match="test tasks diverged"):
        judge(profile, folder)
