"""The rows that ``lft theory`` writes, on a tiny profile trained here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from tiny import tiny_profile

from lft.config import Profile, Run, load_profile
from lft.errors import UsageError
from lft.meta.train import train
from lft.paths import theory_path
from lft.report.theory_tests import STATEMENTS, theory_rows
from lft.results.schema import THEORY_COLUMNS
from lft.scaffold import create
from lft.storage.csv import read_rows
from lft.storage.json import read_json
from lft.theory import measure

MODES = ("exact", "dropped")


@pytest.fixture(scope="module")
def profile() -> Profile:
    return tiny_profile(seeds=[0])


@pytest.fixture(scope="module")
def results(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained weights and the measurements made with them."""
    folder = tmp_path_factory.mktemp("results")
    for method in ("lft", "maml"):
        train(profile, Run("sine", "sine", method, "first", 0), folder)
    measure(profile, "sine", 0, folder)
    return folder


@pytest.fixture(scope="module")
def rows(results: Path) -> pd.DataFrame:
    return pd.read_csv(theory_path(results, "sine", 0))


def test_columns_and_values(rows: pd.DataFrame) -> None:
    assert tuple(rows.columns) == THEORY_COLUMNS
    assert rows.notna().all(axis=None)
    assert (rows["value"].abs() < float("inf")).all()
    assert not rows.duplicated([*THEORY_COLUMNS[:-1]]).any()
    assert set(rows["seed"]) == {0}


def test_every_point_of_the_gap_is_there(profile: Profile, rows: pd.DataFrame) -> None:
    # Sizes 2 and 4, the fixed one 2, K of 1 and 2: both sizes, |D_tr| with D_val of 4, |D_val| with
    # D_tr of 2, K.
    series = {
        "lft": ("gap", {(2, 2, 2), (4, 4, 2), (2, 4, 2), (2, 2, 1)}),
        "lft frozen": ("variance_part", {(2, 2, 2), (4, 4, 2), (2, 4, 2), (4, 2, 2)}),
    }
    for name, (quantity, points) in series.items():
        of_series = rows[rows["method"] == name]
        chosen = of_series[of_series["quantity"] == quantity]
        for stage in ("initial", "halfway", "best"):
            of_stage = chosen[chosen["stage"] == stage]
            found = set(zip(of_stage["support"], of_stage["query"], of_stage["steps"], strict=True))
            assert found == points
            assert len(of_stage) == len(points) * profile.theory.gap.tasks
        others = {"variance_part", "sigma", "jacobian", "bound"}
        if name == "lft":
            others |= {"fitting_square", "gradient_square", "gradient_kept"}
        for other in others:
            assert (of_series["quantity"] == other).sum() == len(chosen)


def test_statement_1_is_measured_for_every_input_and_mode(rows: pd.DataFrame) -> None:
    methods = {f"lft {order} {mode}" for order in ("first", "zeroth") for mode in MODES}
    errors = rows[rows["quantity"] == "statement1_error"].set_index("method")["value"]
    assert set(errors.index) == methods
    assert (errors < 1e-9).all()  # float64; see test_statement1.py
    orders = rows[rows["quantity"] == "derivative_order"].set_index("method")["value"]
    assert orders.to_dict() == {name: 2 if name == "lft first exact" else 1 for name in methods}


def test_norms_of_every_task_stage_and_method(profile: Profile, rows: pd.DataFrame) -> None:
    norms = rows[rows["quantity"] == "meta_gradient_norm"]
    settings = profile.theory.vanishing
    expected = {
        (method, stage, steps, f"sine-{task}")
        for method in ("lft", "maml")
        for stage in ("initial", "best")
        for steps in settings.steps
        for task in range(settings.tasks)
    }
    found = norms[["method", "stage", "steps", "task"]].itertuples(index=False, name=None)
    assert sorted(found) == sorted(expected)


def test_every_statement_can_be_judged(results: Path) -> None:
    read = read_rows(theory_path(results, "sine", 0), THEORY_COLUMNS)
    two = pd.concat([read, read.assign(seed=1)])  # checks of decay need an interval over seeds
    assert {row.claim for row in theory_rows(two)} == set(STATEMENTS)


def test_measuring_twice_gives_the_same_bytes(
    profile: Profile, results: Path, tmp_path: Path
) -> None:
    shutil.copytree(results / "runs", tmp_path / "runs")
    measure(profile, "sine", 0, tmp_path)
    again, before = (theory_path(folder, "sine", 0) for folder in (tmp_path, results))
    assert again.read_bytes() == before.read_bytes()
    manifest = read_json(again.with_suffix(".json"))
    assert (manifest["experiment"], manifest["seed"]) == ("sine", 0)


def test_absent_weights_are_one_line_and_leave_nothing(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the run has not been trained; train it first"):
        measure(profile, "sine", 0, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_seed_that_the_profile_does_not_have_is_refused(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed 7 is not in profile 'tiny'"):
        measure(profile, "sine", 7, tmp_path)


def test_an_experiment_whose_theory_is_not_measured_is_refused(
    profile: Profile, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"not measured in 'attack'; name it in theory\.gap"):
        measure(profile, "attack", 0, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("registry")
def test_a_plug_in_family_is_measured(tmp_path: Path) -> None:
    """The template's, which knows nothing of the theory."""
    folder = create("task", "lines", tmp_path)
    profile = load_profile(folder / "profile.yaml")
    gap = profile.theory.gap.model_copy(update={"experiments": ("demo",)})
    theory = profile.theory.model_copy(update={"gap": gap})
    profile = profile.model_copy(update={"theory": theory})
    train(profile, Run("demo", "points", "lft", "first", 0), tmp_path)
    measure(profile, "demo", 0, tmp_path)
    read = read_rows(theory_path(tmp_path, "demo", 0), THEORY_COLUMNS)
    (bound,) = [row for row in theory_rows(read) if row.claim == "bound_independent"]
    assert (bound.n > 0, bound.violations) == (True, 0)
