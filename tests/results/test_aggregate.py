"""One file from many runs, whatever is missing."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from synthetic import write_results

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.results.aggregate import aggregate, summarise
from lft.results.schema import CELL_COLUMNS, SUMMARY_COLUMNS, THEORY_COLUMNS, Measurement
from lft.storage.csv import join_csv, read_rows

Make = Callable[..., Path]


def run(method: str, seed: int) -> Run:
    return Run("sine", "sine", method, "first", seed)


def status(results: Path, of: Run) -> list[tuple[str, str]]:
    cells = read_rows(results / "cells.csv", CELL_COLUMNS).astype({"reason": str, "status": str})
    rows = cells[["experiment", "trained_on", "method", "order", "seed"]] == list(of)
    found = cells[rows.all(axis=1)]
    return list(found[["status", "reason"]].itertuples(index=False, name=None))


def test_every_row_of_every_run_is_joined(profile: Profile, results: Path) -> None:
    joined = (results / "measurements.csv").read_text().splitlines()
    parts = [path.read_text().splitlines() for path in results.glob("runs/**/measurements.csv")]
    assert joined[0] == ",".join(Measurement._fields)
    assert sorted(joined[1:]) == sorted(line for part in parts for line in part[1:])
    theory = [path.read_text().splitlines() for path in results.glob("theory/*.csv")]
    rows = sum(map(len, theory)) - len(theory)
    assert len(read_rows(results / "theory.csv", THEORY_COLUMNS)) == rows


def test_the_summary_is_pandas_own(results: Path) -> None:
    rows = pd.read_csv(results / "measurements.csv")
    summary = read_rows(results / "summary.csv", SUMMARY_COLUMNS)
    here = {
        **{"experiment": "attack", "trained_on": "mnist", "tested_on": "mnist+cifar10"},
        **{"method": "lft", "order": "first", "seed": 1, "metric": "asr", "step": 7},
    }
    names = list(here)
    values = rows.loc[(rows[names] == pd.Series(here)).all(axis=1), "value"]
    found = summary.loc[(summary[names] == pd.Series(here)).all(axis=1)]
    assert len(values) == 12
    assert found["tasks"].tolist() == [12]
    # CSV files keep seven digits.
    assert found["mean"].item() == pytest.approx(values.mean(), rel=1e-6)
    assert found["std"].item() == pytest.approx(values.std(), rel=1e-6)


def summary_of(metric: str, *values: float) -> pd.Series:
    rows = [(*run("lft", 0)[:2], "sine", "lft", "first", 0, f"sine-{task}", 3, metric, value)
            for task, value in enumerate(values)]  # fmt: skip
    return summarise(pd.DataFrame(rows, columns=list(Measurement._fields))).iloc[0]


def test_a_diverged_task_is_seen_in_the_mean() -> None:
    row = summary_of("mse", 1.0, float("nan"), 3.0)
    assert pd.isna(row["mean"])
    assert row["tasks"] == 2
    assert summary_of("mse", 1.0, float("inf"))["mean"] == float("inf")


def test_tasks_without_full_asr_are_left_out_and_counted() -> None:
    row = summary_of("first_full", 10.0, float("nan"), 20.0)
    assert (row["mean"], row["tasks"]) == (15, 2)


def test_every_planned_cell_has_a_status(profile: Profile, results: Path) -> None:
    cells = read_rows(results / "cells.csv", CELL_COLUMNS).astype(str)
    planned = [(*cell.run, cell.tested_on) for cell in profile.cells()]
    written = cells[["experiment", "trained_on", "method", "order", "seed", "tested_on"]]
    assert len(cells) == len(planned)
    assert set(written.itertuples(index=False, name=None)) == {
        tuple(map(str, key)) for key in planned
    }
    assert set(cells["status"]) == {"ok", "not applicable"}
    refused = cells[cells["status"] == "not applicable"]
    assert set(refused["method"]) == {"maml"}
    assert refused["reason"].str.contains("tasks with different parameters cannot share").all()


def test_a_partial_result_folder(sine: Profile, make: Make) -> None:
    results = make(
        sine, missing=[run("lft", 1), *(run("l2o", seed) for seed in (0, 1, 2))],
        diverged=[run("maml", 2)],
    )  # fmt: skip
    assert status(results, run("lft", 0)) == [("ok", "")]
    assert status(results, run("lft", 1)) == [("missing", "not meta-trained yet")]
    assert status(results, run("l2o", 0)) == [("missing", "not meta-trained yet")]
    reason = "outer loss nan at meta-batch 3, segment 1"
    assert status(results, run("maml", 2)) == [("diverged", reason)]


def test_a_trained_run_without_measurements_is_named(sine: Profile, make: Make) -> None:
    results = make(sine)
    shutil.rmtree(results / "theory")
    (results / run("lft", 0).folder / "measurements.csv").unlink()
    aggregate(sine, results)
    assert status(results, run("lft", 0)) == [("missing", "not evaluated yet")]
    assert len(read_rows(results / "theory.csv", THEORY_COLUMNS)) == 0


@pytest.mark.parametrize("method", ["lft", "all"])
def test_files_of_all_seeds_are_read_where_a_run_has_none(
    sine: Profile, make: Make, method: str
) -> None:
    """As versions before 0.2 wrote them, for a method or for all of them."""
    results = make(sine)
    before = read_rows(results / "measurements.csv", Measurement._fields)
    runs = results / "runs/sine/sine"
    parts = sorted(runs.glob(f"{'*' if method == 'all' else method}-first/seed*/measurements.csv"))
    assert len(parts) >= 3
    join_csv(runs / f"{method}-first/measurements.csv", Measurement._fields, parts)
    for path in parts[1:]:  # the first run was measured again, and has a file of its own
        path.unlink()
    aggregate(sine, results)
    found = read_rows(results / "measurements.csv", Measurement._fields)
    keys = list(Measurement._fields[:-1])
    expected = before.astype(str).sort_values(keys, ignore_index=True)
    assert found.astype(str).sort_values(keys, ignore_index=True).equals(expected)


def test_a_run_made_under_other_settings_is_refused(sine: Profile, make: Make) -> None:
    results = make(sine)
    values = sine.model_dump(mode="json")
    values["experiments"]["sine"]["training"]["learning_rate"] = 0.5
    with pytest.raises(UsageError, match=r"training\.learning_rate 0\.01, the profile says 0\.5"):
        aggregate(Profile.model_validate(values), results)


def test_a_run_in_the_folder_of_another_is_refused(sine: Profile, make: Make) -> None:
    """And what the line advises helps."""
    results = make(sine)
    here, there = (results / run("lft", seed).folder for seed in (0, 1))
    shutil.rmtree(there)
    shutil.copytree(here, there)
    with pytest.raises(
        UsageError, match=r"lft-first/seed1/run\.json is that of runs/.*/seed0; move"
    ):
        aggregate(sine, results)
    shutil.rmtree(there)
    aggregate(sine, results)
    assert status(results, run("lft", 1)) == [("missing", "not meta-trained yet")]


def test_weights_of_which_nobody_knows_how_they_were_made(sine: Profile, make: Make) -> None:
    results = make(sine)
    (results / run("lft", 0).folder / "run.json").unlink()
    with pytest.raises(UsageError, match=r"lft-first/seed0/run\.json is missing, so nobody knows"):
        aggregate(sine, results)


def test_runs_that_all_diverged_are_a_result(sine: Profile, make: Make) -> None:
    results = make(sine, diverged=list(sine.runs("sine")))
    cells = read_rows(results / "cells.csv", CELL_COLUMNS)
    assert set(cells["status"]) == {"diverged"}
    assert len(read_rows(results / "summary.csv", SUMMARY_COLUMNS)) == 0


def test_nothing_measured_is_one_line(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing has been measured in .* run snakemake"):
        aggregate(profile, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_row_is_named(sine: Profile, make: Make) -> None:
    results = make(sine)
    path = results / run("lft", 0).folder / "measurements.csv"
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace(",first,0,", ",first,zero,")
    path.write_text("".join(lines))
    with pytest.raises(UsageError, match=r"seed0/measurements.csv line 3: seed is 'zero'"):
        aggregate(sine, results)


def test_a_truncated_part_is_named(sine: Profile, make: Make) -> None:
    results = make(sine)
    path = results / run("lft", 0).folder / "measurements.csv"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UsageError, match=r"lft-first/seed0/measurements.csv: its last line is cut"):
        aggregate(sine, results)


def test_a_run_json_cut_off_is_made_again_as_advised(sine: Profile, tmp_path: Path) -> None:
    write_results(sine, tmp_path, diverged=[run("lft", 0)])
    path = tmp_path / run("lft", 0).folder / "run.json"
    path.write_bytes(path.read_bytes()[:40])
    message = r"lft-first/seed0/run.json is not valid JSON: .*; delete the file and run the work"
    with pytest.raises(UsageError, match=message):
        aggregate(sine, tmp_path)
    path.unlink()
    write_results(sine, tmp_path, diverged=[run("lft", 0)])  # as the workflow would
    aggregate(sine, tmp_path)


def test_compressed_measurements_are_as_good(sine: Profile, make: Make) -> None:
    results = make(sine)
    names = ("measurements.csv", "summary.csv", "cells.csv")
    aggregate(sine, results)
    before = [(results / name).read_bytes() for name in names]
    for path in results.glob("runs/**/measurements.csv"):
        with gzip.open(path.with_name("measurements.csv.gz"), "wb") as file:
            file.write(path.read_bytes())
        path.unlink()
    aggregate(sine, results)
    assert [(results / name).read_bytes() for name in names] == before
    packed = next(results.glob("runs/**/measurements.csv.gz"))
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"measurements.csv.gz: it is damaged"):
        aggregate(sine, results)
