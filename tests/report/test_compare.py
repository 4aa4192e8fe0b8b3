"""Two result folders side by side."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats
from synthetic import paper_level, report_profile, write_results

from lft.cli import main
from lft.config import Profile, Run
from lft.errors import UsageError
from lft.report.claims import load_claims
from lft.report.compare import KEYS, as_table, compare, sources_note
from lft.results.aggregate import aggregate
from lft.results.schema import SUMMARY_COLUMNS
from lft.storage.csv import write_rows

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def first(sine: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(sine, tmp_path_factory.mktemp("first"))


def written(profile: Profile, folder: Path, **changes: Any) -> Path:
    """A folder with nothing but summary.csv, and measurements.csv for the oracle."""
    write_results(profile, folder / "all", **changes)
    aggregate(profile, folder / "all")
    for name in ("summary.csv", "measurements.csv"):
        (folder / name).symlink_to(folder / "all" / name)
    return folder


def row(frame: pd.DataFrame, method: str, metric: str = "mse") -> pd.Series:
    wanted = (frame["method"] == method) & (frame["metric"] == metric) & (frame["order"] == "first")
    return frame[wanted].iloc[0]


def worse_lft(by: float) -> Callable[[Run, str], float]:
    return lambda run, tested_on: paper_level(run, tested_on) - by * (run.method == "lft")


def test_the_same_folder_is_identical(first: Path) -> None:
    frame = compare(first, first)
    assert set(frame["verdict"]) == {"identical"}
    assert set(frame["difference"]) <= {0, 1}  # of points, and of ratios
    assert not frame.duplicated(KEYS).any()


def test_other_seeds_agree_and_another_method_differs(first: Path, tmp_path: Path) -> None:
    second = written(report_profile((3, 4, 5, 6), "sine"), tmp_path, level=worse_lft(0.4))
    frame = compare(first, second)
    assert row(frame, "lft")["verdict"] == "differ"
    assert row(frame, "maml")["verdict"] == "agree"
    assert (row(frame, "lft")["a_seeds"], row(frame, "lft")["b_seeds"]) == (3, 4)


def test_numbers_are_those_of_scipy(first: Path, tmp_path: Path) -> None:
    second = written(report_profile((3, 4, 5), "sine"), tmp_path)
    frame = compare(first, second)
    found = row(frame, "l2o")
    seeds = []
    for folder in (first, second):
        rows = pd.read_csv(folder / "measurements.csv")
        where = {"method": "l2o", "order": "first", "metric": "mse", "step": 10}
        rows = rows.loc[(rows[list(where)] == pd.Series(where)).all(axis=1)]
        seeds.append(np.log(rows.groupby("seed")["value"].mean()))
    oracle = stats.ttest_ind(*seeds, equal_var=False)
    # Means are written with seven digits.
    assert found["unit"] == "ratio"
    assert np.log(found["difference"]) == pytest.approx(seeds[0].mean() - seeds[1].mean(), abs=1e-6)
    assert np.log([found["low"], found["high"]]) == pytest.approx(
        oracle.confidence_interval(), abs=1e-6
    )
    assert found["p"] >= oracle.pvalue
    assert found["interval"] == "95 % Welch interval over 3 and 3 seeds"


def test_negligible_is_by_the_90_per_cent_interval_as_for_claims(tmp_path: Path) -> None:
    """TOST at 5 % is that interval; the one of 95 % may exceed the smallest effect of interest."""
    smallest, n = load_claims().metrics["accuracy"].smallest, 10
    pattern = np.linspace(-1, 1, n)
    means = [0.6 + lead + 0.0148 * pattern for lead in (0.61 * smallest, 0.0)]
    folders = [tmp_path / name for name in "ab"]
    for folder, values in zip(folders, means, strict=True):
        folder.mkdir()
        cell = ("classification", "cifar10", "cifar10", "lft", "first")
        rows = [(*cell, seed, "accuracy", 50, mean, 0.1, 9) for seed, mean in enumerate(values)]
        write_rows(folder / "summary.csv", SUMMARY_COLUMNS, rows)
    test = stats.ttest_ind(*means, equal_var=False)
    assert test.pvalue < 0.05
    assert test.confidence_interval(0.90).high < smallest < test.confidence_interval(0.95).high
    (found,) = compare(*folders).to_dict("records")
    assert found["verdict"] == "negligible"
    assert found["high"] == pytest.approx(test.confidence_interval(0.95).high)


def test_what_is_not_shown_to_agree_is_not_said_to(first: Path, tmp_path: Path) -> None:
    noisy = written(report_profile((3, 4, 5), "sine"), tmp_path, noise=0.6)
    assert "agree" not in set(compare(first, noisy)["verdict"])


def test_first_steps_are_compared_by_the_mean_curve(
    profile: Profile, results: Path, tmp_path: Path
) -> None:
    found = row(compare(results, results), "lft", "first_full")
    assert found["a"] == 11  # no synthetic attack succeeds on all of 10 steps' tasks
    assert found["verdict"] == "identical"


def test_other_images_are_not_compared(profile: Profile, results: Path, tmp_path: Path) -> None:
    """Both folders call them cifar10."""
    copies = []
    for name, source in (("a", "CIFAR10"), ("b", "photos")):
        copy = tmp_path / name
        (copy / "runs").mkdir(parents=True)
        shutil.copy(results / "summary.csv", copy)
        for path in results.glob("runs/classification/cifar10/*/seed*/run.json"):
            content = json.loads(path.read_text())
            images = {"kind": "embedded", "name": source, "shape": [3, 32, 32]}
            content["settings"] = {"families": {"cifar10": {"images": images}}}
            target = copy / path.relative_to(results)
            target.parent.mkdir(parents=True)
            target.write_text(json.dumps(content))
        copies.append(copy)
    frame = compare(*copies)
    other = frame["verdict"] == "other data"
    touched = (frame["experiment"] == "classification") & (
        frame["trained_on"].str.contains("cifar10") | frame["tested_on"].str.contains("cifar10")
    )
    assert (other == touched).all()
    assert other.any()
    assert frame.loc[other, "p"].isna().all()
    assert sources_note(frame) == (
        "classification, cifar10: embedded CIFAR10 in A, embedded photos in B"
    )


def test_a_pipe_gets_the_whole_table(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second = written(report_profile((3, 4), "sine"), tmp_path)
    monkeypatch.setattr(sys, "argv", ["lft", "compare", str(first), str(second)])
    monkeypatch.setenv("COLUMNS", "60")
    with warnings.catch_warnings(), pytest.raises(SystemExit):
        warnings.simplefilter("error")
        main()
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "sine: lft, first order, sine to sine" in shown
    assert "Welch" not in shown


def test_one_seed_is_inconclusive(first: Path, tmp_path: Path) -> None:
    frame = compare(first, written(report_profile((9,), "sine"), tmp_path))
    assert set(frame["verdict"]) == {"inconclusive"}
    assert frame["p"].isna().all()


def test_cells_of_one_folder_only_are_listed(first: Path, sine: Profile, tmp_path: Path) -> None:
    gone = [run for run in sine.runs("sine") if run.method == "maml"]
    second = written(sine, tmp_path, missing=gone)
    assert row(compare(first, second), "maml")["verdict"] == "only in A"
    assert row(compare(second, first), "maml")["verdict"] == "only in B"
    assert row(compare(second, first), "lft")["verdict"] == "identical"


def test_shorter_runs_are_compared_at_their_last_step(first: Path, tmp_path: Path) -> None:
    values = report_profile((0, 1, 2), "sine").model_dump()
    values["experiments"]["sine"]["testing"]["steps"] = 5
    frame = compare(first, written(Profile.model_validate(values), tmp_path))
    assert set(frame["step"]) == {5}


def test_runs_of_other_strides_are_compared_at_their_last_common_step(
    first: Path, tmp_path: Path
) -> None:
    second = written(report_profile((3, 4), "sine"), tmp_path)
    rows = pd.read_csv(second / "summary.csv")
    (second / "summary.csv").unlink()
    rows[rows["step"] % 4 == 0].to_csv(second / "summary.csv", index=False)
    assert set(compare(first, second)["step"]) == {8}


def test_a_diverged_task_is_inconclusive(first: Path, sine: Profile, tmp_path: Path) -> None:
    second = written(sine, tmp_path)
    text = (second / "summary.csv").read_text()
    (second / "summary.csv").unlink()
    start = text.index("sine,sine,sine,lft,first,0,mse,10,")
    end = text.index("\n", start)
    line = "sine,sine,sine,lft,first,0,mse,10,nan,nan,8"
    (second / "summary.csv").write_text(text[:start] + line + text[end:])
    assert row(compare(first, second), "lft")["verdict"] == "inconclusive"


def test_folders_without_a_common_cell_or_without_measurements(first: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*summary.csv: No such file"):
        compare(first, tmp_path)
    text = (first / "summary.csv").read_text().replace("sine,sine,sine,", "sinus,sine,sine,")
    (tmp_path / "summary.csv").write_text(text)
    with pytest.raises(UsageError, match="have no cell in common"):
        compare(first, tmp_path)


def test_the_terminal_shows_names_as_they_are(first: Path, tmp_path: Path) -> None:
    text = (first / "summary.csv").read_text().replace(",lft,", ",[red]lft[/red],")
    (tmp_path / "summary.csv").write_text(text)
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    console.print(as_table(compare(first, tmp_path)))
    shown = console.export_text()
    assert "[red]lft[/red]" in shown
    assert "only in B" in shown


def test_the_command(
    first: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "comparison.csv"
    arguments = ["lft", "compare", str(first), str(first), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "identical" in capsys.readouterr().out
    written = pd.read_csv(output)
    assert set(written["verdict"]) == {"identical"}
    assert np.isfinite(written["a"]).all()
