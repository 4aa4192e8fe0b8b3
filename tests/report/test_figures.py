"""Figures draw the numbers of measurements.csv, computed here without pandas."""

from __future__ import annotations

import csv
import math
import re
import statistics
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from synthetic import NASTY, paper_level, report_profile

from lft.config import Profile
from lft.errors import UsageError
from lft.report import figures
from lft.report.figures import Drawing, build_figures, draw_figures
from lft.report.figures.base import Measured, curves
from lft.report.figures.finetuning import success_rate
from lft.report.figures.pictures import perturbations
from lft.report.figures.theory import gaps, vanishing
from lft.report.style import Style

# measurements.csv and the sums over it keep seven significant digits.
CSV = 1e-5


@pytest.fixture(scope="module")
def drawings(profile: Profile, results: Path) -> dict[str, Drawing]:
    return {drawing.id: drawing for drawing in build_figures(profile, results)}


@pytest.fixture(scope="module")
def drawn(report: Path) -> Path:
    """The folder of the drawn figures."""
    return report / "figures"


def by_hand(results: Path, experiment: str, metric: str) -> dict[tuple[str, ...], list[float]]:
    """Values of all test tasks and seeds, by (trained on, tested on, method, order, step)."""
    values = defaultdict(list)
    with (results / "measurements.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if (row["experiment"], row["metric"]) == (experiment, metric):
                key = ("trained_on", "tested_on", "method", "order", "step")
                values[tuple(row[name] for name in key)].append(float(row["value"]))
    return values


def test_the_figures_of_the_paper_and_the_theory_are_drawn(drawings: dict[str, Drawing]) -> None:
    assert list(drawings) == [
        "figure-2",
        "figure-a1",
        "figure-3",
        "figure-4",
        "figure-effects-sine",
        "figure-effects-attack",
        "figure-effects-classification",
        "figure-perturbations-mnist",
        "figure-perturbations-mnist-cifar10",
        "figure-gap",
        "figure-vanishing",
        "figure-training",
    ]


@pytest.mark.parametrize(
    ("id", "experiment", "metric"),
    [
        ("figure-2", "attack", "asr"),
        ("figure-a1", "attack", "distortion"),
        ("figure-3", "classification", "accuracy"),
        ("figure-4", "sine", "mse"),
    ],
)
def test_lines_are_means_over_tasks_and_seeds(
    id: str, experiment: str, metric: str, drawings: dict[str, Drawing], results: Path
) -> None:
    values = by_hand(results, experiment, metric)
    data = drawings[id].data
    assert len(data) > 0
    for row in data.itertuples():
        key = (row.trained_on, row.tested_on, row.method, row.order, str(row.step))
        assert row.mean == pytest.approx(statistics.mean(values[key]), rel=CSV)
        assert row.seeds == 3


def test_the_line_of_a_method_has_the_drawn_numbers(
    drawings: dict[str, Drawing], results: Path
) -> None:
    axis = drawings["figure-2"].figure.axes[0]
    line = next(line for line in axis.get_lines() if line.get_label() == "LFT")
    values = by_hand(results, "attack", "asr")
    steps = [str(int(step)) for step in line.get_xdata()]
    expected = [statistics.mean(values["mnist", "mnist", "lft", "first", s]) for s in steps]
    assert len(steps) == 11
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=CSV)


def test_shading_is_the_standard_deviation_over_tasks_and_seeds() -> None:
    """Of equally large groups: the root of mean variance plus variance of means."""
    keys = dict.fromkeys(["experiment", "trained_on", "tested_on", "method", "order"], "x")
    groups = [[1.0, 2.0, 6.0], [0.0, 4.0, 8.0]]
    summary = pd.DataFrame(
        {
            **keys, "metric": "m", "step": 0, "seed": seed,
            "mean": statistics.mean(group), "std": statistics.pstdev(group), "tasks": 3,
        }
        for seed, group in enumerate(groups)
    )  # fmt: skip
    pooled = statistics.pstdev([value for group in groups for value in group])
    # Rounding of float64.
    assert curves(summary)["std"].item() == pytest.approx(pooled, rel=1e-12)


def test_grid_has_training_mixtures_as_rows_and_test_mixtures_as_columns(
    drawings: dict[str, Drawing],
) -> None:
    axes = drawings["figure-2"].figure.axes
    assert len(axes) == 6
    assert [axis.get_ylabel() for axis in axes[::3]] == [
        "trained on\nmnist",
        "trained on\nmnist + cifar10",
    ]
    assert axes[2].get_title() == "tested on\nmnist + cifar10"
    assert [axis.get_title() for axis in drawings["figure-4"].figure.axes] == [
        "first order",
        "zeroth order",
    ]


def printed_values(drawing: Drawing, panel: int) -> list[float]:
    """Heights of the open markers."""
    lines = drawing.figure.axes[panel].get_lines()
    return sorted(float(x.get_ydata()[0]) for x in lines if x.get_markerfacecolor() == "none")


def test_printed_values_are_marked(drawings: dict[str, Drawing]) -> None:
    assert printed_values(drawings["figure-2"], 0) == [0.52, 0.85, 1.0]
    assert printed_values(drawings["figure-2"], 1) == [0.0, 0.25]
    assert printed_values(drawings["figure-4"], 0) == []


def test_a_misprint_of_the_paper_is_not_marked(drawings: dict[str, Drawing]) -> None:
    """Table 1 prints a distortion of 0.89 that can only be 0.089."""
    assert printed_values(drawings["figure-a1"], 5) == [0.096]


def test_alternative_text_states_the_final_means(
    drawings: dict[str, Drawing], results: Path
) -> None:
    final = by_hand(results, "attack", "asr")["mnist", "mnist", "lft", "first", "10"]
    assert f"LFT {statistics.mean(final):.3g}" in drawings["figure-2"].alt
    assert drawings["figure-2"].alt.startswith("After 10 steps, trained on mnist, tested on mnist")


def test_gaps_are_means_over_tasks_and_seeds(drawings: dict[str, Drawing], results: Path) -> None:
    values = defaultdict(list)
    with (results / "theory.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["quantity"] == "gap":
                place = ("experiment", "stage", "method", "support", "query", "steps")
                key = tuple(row[name] for name in place)
                values[key].append(float(row["value"]))
    data = drawings["figure-gap"].data
    data = data[data["method"] == "lft"]
    assert len(data) == len(values)
    for row in data.itertuples():
        sizes = str(row.support), str(row.query), str(row.steps)
        key = (row.experiment, row.stage, row.method, *sizes)
        assert row.gap == pytest.approx(statistics.mean(values[key]), rel=CSV)


def test_gaps_over_g_sigma_are_means_of_each_task_s_own_ratio(
    profile: Profile, make: Callable[..., Path]
) -> None:
    """A task with a hundredfold gap and bound has the same ratio; a ratio of means would be its."""
    results = make(profile)
    theory = pd.read_csv(results / "theory.csv")
    odd = theory["task"].str.endswith("-1") & theory["quantity"].isin(["gap", "bound"])
    theory.loc[odd, "value"] *= 100
    theory.loc[odd & (theory["quantity"] == "bound"), "value"] *= 3
    theory.to_csv(results / "theory.csv", index=False)
    (drawing,) = gaps(Measured(profile, results))
    drawn = drawing.data.dropna(subset="ratio").query("method == 'lft'")
    assert set(drawn["stage"]) == {"best"}
    assert len(drawn)
    for row in drawn.itertuples():
        here = theory.query(
            "experiment == @row.experiment and stage == 'best' and method == 'lft' "
            "and steps == @row.steps and support == @row.support and query == @row.query"
        )
        of_task = here.pivot_table(index=["seed", "task"], columns="quantity", values="value")
        by_hand = [
            gap / bound * 2 / math.sqrt(row.support)
            for gap, bound in zip(of_task["gap"], of_task["bound"], strict=True)
        ]
        assert row.support == row.query
        assert row.ratio == pytest.approx(statistics.mean(by_hand), rel=CSV)


def test_vanishing_is_relative_to_the_smallest_k(drawings: dict[str, Drawing]) -> None:
    """The synthetic norms are K^-1 for MAML and K^-0.1 for LFT, with 1 % noise."""
    data = drawings["figure-vanishing"].data
    for row in data.itertuples():
        power = {"maml": -1.0, "lft": 0.1}[row.method]
        expected = (row.steps / data["steps"].min()) ** power
        assert row.median == pytest.approx(expected, rel=0.05)
        assert row.low <= row.median <= row.high
        assert (row.n, row.left_out) == (2 * 3, 0)  # tasks of every seed


def test_norms_that_are_not_finite_are_counted(profile: Profile, make: Callable[..., Path]) -> None:
    results = make(profile)
    text = (results / "theory.csv").read_text().splitlines()
    place = next(i for i, line in enumerate(text) if "sine,best,meta_gradient_norm,lft,0,2" in line)
    text[place] = text[place].rpartition(",")[0] + ",inf"
    (results / "theory.csv").write_text("\n".join(text) + "\n")
    (drawing,) = vanishing(Measured(profile, results))
    found = drawing.data.query("stage == 'best' and method == 'lft' and steps == 2")
    assert (found["n"].item(), found["left_out"].item()) == (5, 1)
    assert np.isfinite(drawing.data["high"]).all()
    assert "1 tasks left out" in drawing.alt


def test_the_exponents_are_drawn_with_the_bound_s(drawings: dict[str, Drawing]) -> None:
    """The synthetic gap falls as the bound does, in both series."""
    said = r"(-\d\.\d\d) \((-\d\.\d\d)\)"
    found = re.findall(said, drawings["figure-gap"].alt)
    assert len(found) == 2 * 3  # series, and which of the sizes varies
    for ours, bound in found:
        assert float(ours) == pytest.approx(float(bound), abs=0.03)


def test_perturbations_show_the_first_task(drawings: dict[str, Drawing]) -> None:
    data = drawings["figure-perturbations-mnist"].data
    assert set(data["method"]) == {"maml", "l2o", "lft", "sgd"}
    assert ((data["label"] + 1) % 3 == data["prediction"]).all()
    texts = [
        text.get_text() for text in drawings["figure-perturbations-mnist"].figure.axes[0].texts
    ]
    row = data.iloc[0]
    assert f"{row['label']} → {row['prediction']}" in texts


def test_every_figure_is_written_in_four_formats(drawn: Path, drawings: dict[str, Drawing]) -> None:
    expected = {f"{id}.{suffix}" for id in drawings for suffix in ("svg", "pdf", "png", "csv")}
    assert {path.name for path in drawn.iterdir()} == expected | {"captions.csv"}
    written = pd.read_csv(drawn / "figure-2.csv")
    # seven digits are written
    np.testing.assert_allclose(written["mean"], drawings["figure-2"].data["mean"], rtol=1e-6)


def test_figures_are_the_same_bytes_again(
    profile: Profile, results: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in results.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.setattr(figures, "BUILDERS", (success_rate, perturbations))
    draw_figures(profile, tmp_path)
    again = [path for path in (tmp_path / "figures").iterdir() if path.name != "captions.csv"]
    assert len(again) == 12
    for path in again:
        assert path.read_bytes() == (drawn / path.name).read_bytes(), path.name


def test_figures_have_captions_and_plain_numbers_on_their_axes(
    drawn: Path, drawings: dict[str, Drawing]
) -> None:
    with (drawn / "captions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(drawings)
    for row in rows:
        assert len(row["caption"]) > 40
        assert len(row["alt"]) > 40
        assert "mathdefault" not in (drawn / f"{row['id']}.svg").read_text()


def test_drawing_leaves_matplotlib_as_it_was(drawn: Path) -> None:
    assert mpl.rcParams["svg.hashsalt"] is None


def test_labels_are_inert_in_svg(drawn: Path) -> None:
    tree = ET.parse(drawn / "figure-training.svg")
    texts = "".join("".join(element.itertext()) for element in tree.iter())
    assert NASTY in texts
    assert not [element for element in tree.iter() if element.tag.endswith("script")]


def test_what_was_not_measured_is_not_drawn(profile: Profile, make: Callable[..., Path]) -> None:
    missing = [run for run in profile.runs("sine") if run.method in ("maml", "l2o", "lft")]
    missing += [run for run in profile.runs("attack") if run.trained_on == "mnist"]
    results = make(profile, missing=missing)
    (results / "theory.csv").write_text(
        (results / "theory.csv").read_text().splitlines(keepends=True)[0]
    )
    ids = {drawing.id: drawing for drawing in build_figures(profile, results)}
    assert not {"figure-gap", "figure-vanishing", "figure-perturbations-mnist"} & set(ids)
    first, *_, last = ids["figure-2"].figure.axes
    assert not [line for line in first.get_lines() if line.get_label() == "LFT"]
    assert [line for line in last.get_lines() if line.get_label() == "LFT"]


def test_a_damaged_history_is_named(profile: Profile, make: Callable[..., Path]) -> None:
    results = make(profile)
    run = next(run for run in profile.runs("sine") if run.method == "lft")
    history = results / run.folder / "history.csv"
    history.write_text(history.read_text().replace("\n2,", "\ntwo,"))
    with pytest.raises(UsageError, match=r"history\.csv line 3: meta_step is 'two', not a number"):
        list(build_figures(profile, results))


def test_a_diverged_cell_has_a_gap_in_its_line(profile: Profile, make: Callable[..., Path]) -> None:
    def level(run: object, tested_on: str) -> float:
        return math.nan if getattr(run, "method", "") == "l2o" else paper_level(run, tested_on)

    drawings = {
        drawing.id: drawing for drawing in build_figures(profile, make(profile, level=level))
    }
    line = drawings["figure-3"].data.query("method == 'l2o' and step > 0")
    assert line["mean"].isna().all()
    assert "L2O nan" in drawings["figure-3"].alt


def test_unknown_methods_are_refused(profile: Profile) -> None:
    with pytest.raises(UsageError, match="did you mean 'lft'"):
        Style(profile).method("sine", "lftt")
    with pytest.raises(UsageError, match="no method 'sgd'"):
        Style(profile).method("sine", "sgd")


def test_every_method_can_be_told_by_colour_and_by_line() -> None:
    style = Style(report_profile())
    looks = [style.method("attack", name) for name in ("maml", "l2o", "lft", "sgd")]
    assert len({look.color for look in looks}) == len({look.line for look in looks}) == 4


def test_stand_ins_are_marked() -> None:
    profile = report_profile()
    source = profile.sources["mnist"].model_copy(update={"stands_in_for": "MNIST"})
    profile = profile.model_copy(update={"sources": {**profile.sources, "mnist": source}})
    style = Style(profile)
    assert style.mixture("attack", "mnist+cifar10") == "mnist* + cifar10"
    assert style.mixture("classification", "mnist") == "mnist* (MLP)"
    assert "Stands in" in style.footnote
    assert Style(report_profile()).footnote == ""
