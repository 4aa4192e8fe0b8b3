"""Experiments that are not the paper's: tables, figures and alternatives follow from settings."""

from __future__ import annotations

import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import ROOT
from synthetic import report_profile, write_results

from lft.config import Profile
from lft.report.alternatives import effects, found_alternatives, write_alternatives
from lft.report.claims import read_verdicts
from lft.report.figures import Drawing, build_figures
from lft.report.tables import build_tables
from lft.results.aggregate import aggregate
from lft.results.schema import ALTERNATIVE_COLUMNS
from lft.storage.csv import read_rows

CSV = 1e-5
"""summary.csv keeps seven significant digits."""
SIZES = (1, 5, 50)


@pytest.fixture(scope="module")
def supplement() -> Profile:
    """Attacks by support size, 120 steps, and a variant of LFT that is trained on two of them."""
    values = report_profile((0, 1, 2), "sine", "attack").model_dump()
    attack = values["experiments"].pop("attack")
    family = attack["families"]["mnist"]
    attack["families"] = {
        f"size-{n}": {**family, "support": n, "label": f"{n} images"} for n in SIZES
    }
    attack |= {
        "title": "Attacks by images",
        "train_on": ["size-5"],
        "test_on": [f"size-{n}" for n in SIZES],
        "methods": ["l2o", "lft"],
        "variants": {
            "lft-two": {"method": "lft", "label": "LFT on two", "set": {"training.steps": 2}}
        },
        "testing": {"tasks": 2, "steps": 120},
    }
    values["experiments"]["support"] = attack
    values["theory"] = {
        "gap": values["theory"]["gap"] | {"experiments": []},
        "vanishing": values["theory"]["vanishing"] | {"experiments": []},
    }
    return Profile.model_validate(values)


@pytest.fixture(scope="module")
def results(supplement: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LFT trained on two steps is worse than LFT; more images help."""
    folder = tmp_path_factory.mktemp("results") / supplement.name
    levels = {"l2o": 0.5, "lft": 0.8, "lft-two": 0.6}
    write_results(
        supplement,
        folder,
        level=lambda run, tested_on: levels.get(run.method, 0.5) - 0.1 * (tested_on == "size-1"),
    )
    aggregate(supplement, folder)
    write_alternatives(supplement, folder)
    return folder


@pytest.fixture(scope="module")
def drawings(supplement: Profile, results: Path) -> dict[str, Drawing]:
    return {drawing.id: drawing for drawing in build_figures(supplement, results)}


def seed_means(results: Path, metric: str, step: int) -> dict[tuple[str, str], list[float]]:
    """Means over test tasks of each seed, by tested on and method, from measurements.csv."""
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (results / "measurements.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if (row["metric"], row["step"]) == (metric, str(step)):
                values[row["tested_on"], row["method"]][row["seed"]].append(float(row["value"]))
    return {key: [statistics.mean(v) for v in seeds.values()] for key, seeds in values.items()}


def test_tables_are_taken_after_the_papers_steps_and_after_all(
    supplement: Profile, results: Path
) -> None:
    tables = {table.id: table for table in build_tables(supplement, results)}
    assert [name for name in tables if "trained" not in name] == [
        "table-sine", "table-support", "table-support-120", "table-ablations-sine",
        "table-ablations-support",
    ]  # fmt: skip
    for step in (100, 120):
        found = tables["table-support" if step == 100 else f"table-support-{step}"]
        assert found.columns[:3] == ["1 images: ASR", "1 images: mean |δ|", "5 images: ASR"]
        assert f"after {step} fine-tuning steps (of 120)" in found.caption
        expected = seed_means(results, "distortion", step)["size-5", "lft"]
        cell = found.cells[1][3]
        assert cell.interval.mean == pytest.approx(statistics.mean(expected), rel=CSV)


def test_ablations_show_all_that_an_experiment_is_judged_by(
    supplement: Profile, results: Path
) -> None:
    tables = {table.id: table for table in build_tables(supplement, results)}
    found = tables["table-ablations-support"]
    assert found.rows == ["LFT", "LFT on two"]
    assert found.columns[:4] == ["ASR", "change in ASR", "mean |δ|", "change in mean |δ|"]


def test_outcomes_are_drawn_against_the_support_size(
    drawings: dict[str, Drawing], results: Path
) -> None:
    drawing = drawings["figure-support-sizes"]
    axes = drawing.figure.axes
    assert [axis.get_title() for axis in axes[:2]] == [
        "trained on 5 images,\nafter 100 steps",
        "trained on 5 images,\nafter 120 steps",
    ]
    line = next(bars for bars in axes[1].containers if bars.get_label() == "LFT")[0]
    assert list(line.get_xdata()) == list(SIZES)
    means = seed_means(results, "asr", 120)
    expected = [statistics.mean(means[f"size-{n}", "lft"]) for n in SIZES]
    assert list(line.get_ydata()) == pytest.approx(expected, rel=CSV)
    assert "by support images per class: L2O trained on 5 images" in drawing.alt


def test_only_families_that_differ_in_the_support_alone_are_compared(
    supplement: Profile, results: Path
) -> None:
    experiment = supplement.experiments["support"]
    other = experiment.families["size-50"].model_copy(update={"query": 3})
    families = experiment.families | {"size-50": other}
    experiments = supplement.experiments | {
        "support": experiment.model_copy(update={"families": families})
    }
    profile = supplement.model_copy(update={"experiments": experiments})
    assert "figure-support-sizes" not in {d.id for d in build_figures(profile, results)}


def test_curves_of_shorter_training_end_their_training_at_a_dot(
    drawings: dict[str, Drawing], results: Path
) -> None:
    drawing = drawings["figure-support-horizons"]
    lines = drawing.figure.axes[0].get_lines()
    named = [line for line in lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in named] == [
        "LFT, trained on 2 steps", "LFT, trained on 4 steps",
    ]  # fmt: skip
    dots = [line for line in lines if line.get_marker() == "o"]
    assert [list(dot.get_xdata()) for dot in dots] == [[2], [4]]
    means = seed_means(results, "asr", 120)["size-1", "lft-two"]
    assert named[0].get_ydata()[-1] == pytest.approx(statistics.mean(means), rel=CSV)
    assert "trained on 2 steps 0." in drawing.alt
    assert "figure-sine-horizons" not in drawings


def test_pictures_are_of_the_first_and_the_last_test_family(drawings: dict[str, Drawing]) -> None:
    data = drawings["figure-perturbations-support-size-5"].data
    assert set(data["family"]) == {"size-1", "size-50"}
    assert set(data["method"]) == {"l2o", "lft"}  # a variant may have other tasks


def test_the_page_leaves_out_claims_on_what_the_profile_does_not_hold(
    supplement: Profile, results: Path, write_report: Callable[[Profile, Path], None]
) -> None:
    write_report(supplement, results)
    page = (results / "report.html").read_text(encoding="utf-8")
    claims = read_verdicts(results).claims
    absent = sum(row.status == "not in this profile" for row in claims)
    assert 0 < absent < len(claims)  # sine's are there, the attacks' are not
    assert f"{absent} of the paper's claims are about something that is not in this profile" in page
    assert "LFT attacks more images than L2O" not in page
    assert "The recursion of eqs. 8 and 9" not in page  # the profile measures no theory
    assert "LFT on two (support): ASR" in page


def test_alternatives_are_paired_by_seed(results: Path) -> None:
    rows = read_rows(results / "alternatives.csv", ALTERNATIVE_COLUMNS)
    row = rows[(rows["alternative"] == "lft-two") & (rows["metric"] == "asr")].iloc[0]
    means = seed_means(results, "asr", 100)
    base, mean = means["size-1", "lft"], means["size-1", "lft-two"]
    assert (row["base"], row["mean"]) == pytest.approx(
        (statistics.mean(base), statistics.mean(mean)), rel=CSV
    )
    differences = [b - a for a, b in zip(base, mean, strict=True)]
    assert row["difference"] == pytest.approx(statistics.mean(differences), rel=CSV)
    # The 0.975 quantile of Student's t with two degrees of freedom, from a table.
    half = 4.302653 * statistics.stdev(differences) / 3**0.5
    assert row["high"] - row["low"] == pytest.approx(2 * half, rel=1e-4)
    assert json.loads(row["settings"]) == {"training.steps": 2}


def test_a_variant_answers_the_question_of_what_it_sets_first(results: Path) -> None:
    rows = read_rows(results / "alternatives.csv", ALTERNATIVE_COLUMNS)
    (told,) = effects(rows, "training.steps", [])
    assert told.startswith("LFT on two (support): ASR ")
    assert "mean |δ| " in told
    assert list(effects(rows, "training.step", [])) == []
    assert len(list(effects(rows, "training.segment", []))) == 2  # both orders of sine's variant


def test_a_kept_run_answers_under_the_former_name_of_a_setting() -> None:
    rows = read_rows(ROOT / "results/ablation/alternatives.csv", ALTERNATIVE_COLUMNS)
    told = list(effects(rows, "training.estimator", []))
    assert {line.split(" (")[0] for line in told} == {"LFT, second order kept"}


def test_reports_show_what_the_profiles_for_alternatives_found_beside_them(
    supplement: Profile, results: Path, tmp_path: Path
) -> None:
    for name in ("ablation", "mine", "reference"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "alternatives.csv").write_bytes(
            (results / "alternatives.csv").read_bytes()
        )
    profile = supplement.model_copy(update={"name": "reference"})
    assert list(found_alternatives(profile, tmp_path / "reference")) == ["ablation", "reference"]
