"""Hyper-parameter search: combinations become variants, and the lowest score is chosen."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tiny import tiny_profile

from lft.config import Profile, load_profile
from lft.errors import UsageError
from lft.results.manifest import manifest
from lft.results.search import write_search
from lft.storage.json import write_json

ROOT = Path(__file__).resolve().parents[2]
GRID = {"training.learning_rate": [0.1, 0.2], "finetuner.output_scale": [1.0, 2.0]}


def searching(**changes: Any) -> Profile:
    return tiny_profile(
        experiments__attack__methods=[],
        experiments__attack__search={"lft": GRID, "l2o": {"training.learning_rate": [0.1, 0.2]}},
        **changes,
    )


def record(profile: Profile, results: Path, scores: dict[tuple[str, int], float | None]) -> None:
    for run in profile.runs("attack"):
        score = scores[run.method, run.seed]
        facts = {
            "run": run._asdict(),
            "status": "diverged" if score is None else "ok",
            "validation_score": score,
            "seconds": 2.0,
        }
        content = manifest(profile.training_inputs(run), **facts)
        write_json(results / run.folder / "run.json", content)


def test_a_search_tries_every_combination_and_nothing_else() -> None:
    experiment = searching().experiments["attack"]
    assert list(experiment.variants) == ["lft-1", "lft-2", "lft-3", "lft-4", "l2o-1", "l2o-2"]
    tried = {
        (changed.training.learning_rate, changed.finetuner.output_scale)
        for name in ("lft-1", "lft-2", "lft-3", "lft-4")
        for changed in [experiment.for_method(name)]
    }
    assert tried == {(0.1, 1.0), (0.1, 2.0), (0.2, 1.0), (0.2, 2.0)}


@pytest.mark.parametrize(
    "search, expected",
    [
        ({"lft": {"training.rate": [1.0]}}, "unknown key 'training.rate'"),
        ({"lfd": {"training.clip": [1.0]}}, "unknown method 'lfd'"),
        ({"lft": {"training.clip": [-1.0]}}, "training.clip"),
        ({"lft": {"training.clip": 1.0}}, "valid list"),
        ({"lft": 1.0}, "valid dictionary"),
    ],
)
def test_a_bad_search_is_refused(search: Any, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        tiny_profile(experiments__attack__search=search)


def test_the_lowest_mean_score_is_chosen(tmp_path: Path) -> None:
    profile = searching()
    scores: dict[tuple[str, int], float | None] = {
        ("lft-1", 0): 0.1, ("lft-1", 1): 0.9,
        ("lft-2", 0): 0.4, ("lft-2", 1): 0.4,  # the lowest mean
        ("lft-3", 0): 0.0, ("lft-3", 1): None,  # the lowest score, but for one seed only
        ("lft-4", 0): 0.5, ("lft-4", 1): 0.5,
        ("l2o-1", 0): 3.0, ("l2o-1", 1): 3.0,
        ("l2o-2", 0): 2.0, ("l2o-2", 1): 2.0,
    }  # fmt: skip
    record(profile, tmp_path, scores)
    write_search(profile, tmp_path)
    with (tmp_path / "search.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    chosen = [(row["method"], row["settings"]) for row in rows if row["chosen"] == "True"]
    assert chosen == [
        ("lft", "training.learning_rate 0.1, finetuner.output_scale 2.0"),
        ("l2o", "training.learning_rate 0.2"),
    ]
    third = rows[2]
    assert (third["score"], third["seeds"], third["diverged"]) == ("nan", "2", "1")


def test_an_untrained_combination_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lft-1-first/seed0/run\.json is missing"):
        write_search(searching(), tmp_path)


def test_a_profile_that_searches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="searches nothing"):
        write_search(tiny_profile(), tmp_path)


@pytest.mark.parametrize(
    "name, searched, experiments",
    [
        ("quick", "search", {"attack", "sine"}),
        ("quick", "search-seeds", {"classification"}),
        ("paper", "search", {"attack"}),
        ("paper", "search-seeds", {"classification", "sine"}),
    ],
)
def test_the_shipped_profiles_take_what_the_kept_searches_chose(
    name: str, searched: str, experiments: set[str]
) -> None:
    search = load_profile(ROOT / f"workflow/config/{searched}.yaml")
    taken = load_profile(ROOT / f"workflow/config/{name}.yaml")
    with (ROOT / "results" / searched / "search.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["experiment"] in experiments]
    assert {int(row["seeds"]) for row in rows} == {len(search.seeds)}
    chosen = [row for row in rows if row["chosen"] == "True"]
    assert len(chosen) == 3 * len(experiments)  # L2O, LFT and MAML
    for row in chosen:
        experiment = search.experiments[row["experiment"]]
        (variant,) = [
            variant
            for variant in experiment.variants.values()
            if (variant.method, variant.label) == (row["method"], row["settings"])
        ]
        values = taken.experiments[row["experiment"]].for_method(row["method"]).model_dump()
        for dotted, value in variant.set.items():
            found = values
            for key in dotted.split("."):
                found = found[key]
            assert found == value, (row["experiment"], row["method"], dotted)
