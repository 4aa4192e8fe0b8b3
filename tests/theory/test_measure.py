"""The rows that ``lft theory`` writes, on a tiny profile trained here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import tiny_profile

from lft.config import Profile, Run
from lft.errors import UsageError
from lft.meta.train import train
from lft.results.records import THEORY_COLUMNS, read_json
from lft.theory import measure


@pytest.fixture(autouse=True, scope="module")
def settings_of_torch() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def profile() -> Profile:
    return tiny_profile(seeds=[0])


@pytest.fixture(scope="module")
def results(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained weights and the measurements made with them."""
    folder = tmp_path_factory.mktemp("results")
    for method in ("lft", "maml"):
        train(profile, Run("sine", "sine", method, "first", 0), folder)
    measure(profile, "sine", folder)
    return folder


@pytest.fixture(scope="module")
def rows(results: Path) -> pd.DataFrame:
    return pd.read_csv(results / "theory" / "sine.csv")


def test_columns_and_values(rows: pd.DataFrame) -> None:
    assert tuple(rows.columns) == THEORY_COLUMNS
    assert rows.notna().all(axis=None)
    assert (rows["value"].abs() < float("inf")).all()
    assert not rows.duplicated([*THEORY_COLUMNS[:-1]]).any()


def test_every_point_of_the_gap_is_there(profile: Profile, rows: pd.DataFrame) -> None:
    gap = rows[rows["quantity"] == "gap"]
    # D_tr and D_val of 2 or 4 with the other one 2 at K = 2, and K = 1 at the fixed sizes.
    points = {(2, 2, 2), (4, 2, 2), (2, 4, 2), (2, 2, 1)}
    for stage in ("initial", "halfway", "best"):
        of_stage = gap[gap["stage"] == stage]
        found = set(zip(of_stage["support"], of_stage["query"], of_stage["steps"], strict=True))
        assert found == points
        assert len(of_stage) == len(points) * profile.theory.gap.tasks
    others = {"variance_part", "fitting_square", "gradient_square", "gradient_kept"}
    for quantity in others | {"sigma", "jacobian", "bound"}:
        assert (rows["quantity"] == quantity).sum() == len(gap)


def test_statement_1_is_measured_for_every_input_and_mode(rows: pd.DataFrame) -> None:
    errors = rows[rows["quantity"] == "statement1_error"].set_index("method")["value"]
    assert set(errors.index) == {
        f"lft {order} {mode}" for order in ("first", "zeroth") for mode in ("exact", "dropped")
    }
    assert (errors < 1e-9).all()  # float64; see test_statement1.py


def test_measuring_twice_gives_the_same_bytes(
    profile: Profile, results: Path, tmp_path: Path
) -> None:
    shutil.copytree(results / "runs", tmp_path / "runs")
    measure(profile, "sine", tmp_path)
    again, before = (folder / "theory" / "sine.csv" for folder in (tmp_path, results))
    assert again.read_bytes() == before.read_bytes()
    assert read_json(again.with_suffix(".json"))["experiment"] == "sine"


def test_absent_weights_are_one_line_and_leave_nothing(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weights\.safetensors is missing"):
        measure(profile, "sine", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
