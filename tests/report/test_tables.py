"""Tables: the numbers, what is missing, and that text from settings is inert."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic import NASTY, TRAINED, report_profile, write_history

from lft.config import Profile, Run
from lft.report.claims.baselines import behind
from lft.report.tables import Key, Table, TableCell, build_tables, write_tables

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def tables(profile: Profile, results: Path) -> dict[str, Table]:
    """Those of the complete results."""
    return {table.id: table for table in build_tables(profile, results)}


def table(profile: Profile, results: Path, id: str) -> Table:
    return next(table for table in build_tables(profile, results) if table.id == id)


def cell(found: Table, *key: str) -> TableCell:
    return next(cell for row in found.cells for cell in row if cell.key == Key(*key))


def sine_runs(profile: Profile, method: str) -> list[Run]:
    return [run for run in profile.runs("sine") if run.method == method and run.order == "first"]


LFT = ("attack", "mnist", "mnist", "lft", "first")
SINE = ("sine", "sine", "sine", "lft", "first", "mse")


def test_a_number_can_be_followed_back_to_the_measurements(
    tables: dict[str, Table], results: Path
) -> None:
    found = cell(tables["table-1"], *LFT, "asr")
    rows = pd.read_csv(results / "measurements.csv")
    where = {**found.key._asdict(), "step": found.step}
    values = rows.loc[(rows[list(where)] == pd.Series(where)).all(axis=1)]
    seeds = values.groupby("seed")["value"].mean()
    half = stats.t.ppf(0.975, 2) * seeds.std() / np.sqrt(3)
    # CSV files keep seven digits.
    assert found.interval.mean == pytest.approx(seeds.mean(), rel=1e-6)
    assert found.interval.half_width == pytest.approx(half, rel=1e-4)
    assert found.ours == f"{100 * seeds.mean():.0f} ± {100 * half:.0f} %"
    assert (found.paper, found.paper_value) == ("100 %", 1.0)
    assert (found.note, found.status) == ("n = 3", "ok")
    assert found.interval.kind == "95 % t interval over 3 seeds"


def test_table_1_has_the_papers_layout(tables: dict[str, Table]) -> None:
    found = tables["table-1"]
    assert found.rows[:4] == ["mnist, MAML", "mnist, L2O", "mnist, LFT", "mnist, SGD"]
    assert found.rows[4:6] == ["mnist + cifar10, MAML", "mnist + cifar10, L2O"]
    assert found.columns[1] == "mnist: mean |δ|"
    assert len(found.columns) == 11
    assert found.columns[-2:] == ["seeds diverged", "seeds untrained"]
    # Test tasks of the tiny profile make ten steps; the paper's tables have 100.
    assert "after 10 fine-tuning steps (of 10), means over 12 test tasks" in found.caption
    assert "95 % t interval over seeds" in found.caption


def test_all_the_papers_numbers_have_a_cell(tables: dict[str, Table]) -> None:
    from lft.report.claims import load_paper

    shown = {
        (cell.key.trained_on, cell.key.tested_on, cell.key.method, cell.key.metric): cell
        for found in tables.values()
        for row in found.cells
        for cell in row
        if cell.paper != "–"
    }
    assert shown.keys() == load_paper().keys()
    misprint = shown["mnist+cifar10", "mnist+cifar10", "lft", "distortion"]
    assert (misprint.paper, misprint.paper_value) == ("0.89†", 0.89)


def test_the_papers_numbers_are_first_order(make: Make) -> None:
    values = report_profile((0, 1), "sine", "attack").model_dump()
    values["experiments"]["attack"]["orders"] = ["first", "zeroth"]
    values["experiments"]["attack"]["maml"]["step_size"]["zeroth"] = 0.01
    both = Profile.model_validate(values)
    found = table(both, make(both), "table-1")
    assert cell(found, *LFT, "asr").paper == "100 %"
    assert cell(found, *LFT[:4], "zeroth", "asr").paper == "–"


def test_not_applicable_comes_from_the_methods_refusal(tables: dict[str, Table]) -> None:
    maml = ("attack", "mnist", "cifar10", "maml", "first", "asr")
    found = cell(tables["table-1"], *maml)
    assert (found.ours, found.status) == ("not applicable", "not applicable")
    assert "cannot share" in found.note


def test_tables_stop_at_100_steps_but_first_full_does_not(sine: Profile, make: Make) -> None:
    values = report_profile((0, 1), "sine", "attack").model_dump()
    for experiment in values["experiments"].values():
        experiment["testing"] = {"tasks": 2, "steps": 120}
    long = Profile.model_validate(values)
    found = table(long, make(long), "table-1")
    assert cell(found, *LFT, "asr").step == 100
    assert cell(found, *LFT, "first_full").step == 120
    assert "after 100 fine-tuning steps (of 120)" in found.caption


def test_missing_and_diverged_seeds_are_counted(sine: Profile, make: Make) -> None:
    lft, l2o, maml = (sine_runs(sine, method) for method in ("lft", "l2o", "maml"))
    results = make(sine, missing=[lft[1], *maml], diverged=[lft[2], l2o[0]])
    found = table(sine, results, "table-sine")
    assert cell(found, *SINE).note == "n = 1/3, 1 diverged"
    assert cell(found, *SINE).status == "diverged"
    assert "±" not in cell(found, *SINE).ours
    assert cell(found, *SINE).interval.kind == "no interval (n = 1)"
    of_l2o = cell(found, "sine", "sine", "sine", "l2o", "first", "mse")
    assert of_l2o.note == "n = 2/3, 1 diverged"
    assert "±" in of_l2o.ours
    of_maml = cell(found, "sine", "sine", "sine", "maml", "first", "mse")
    assert (of_maml.ours, of_maml.note) == ("missing", "n = 0/3")


def test_a_method_that_always_diverged_says_so(sine: Profile, make: Make) -> None:
    results = make(sine, diverged=sine_runs(sine, "lft"))
    found = cell(table(sine, results, "table-sine"), *SINE)
    assert (found.ours, found.status, found.note) == ("diverged", "diverged", "n = 0/3, 3 diverged")


def test_equal_seeds_have_no_interval(sine: Profile, make: Make) -> None:
    results = make(sine)
    summary = pd.read_csv(results / "summary.csv")
    summary["mean"] = 0.5
    summary.to_csv(results / "summary.csv", index=False, lineterminator="\n")
    found = cell(table(sine, results, "table-sine"), *SINE)
    assert (found.ours, found.note) == ("0.50", "n = 3")
    assert found.interval.kind == "no interval (3 equal seeds)"


def test_full_asr_that_is_never_reached(make: Make) -> None:
    attack = report_profile((0, 1), "sine", "attack")
    results = make(attack, level=lambda run, _: 0.2 if run.method == "lft" else 0.7)
    found = cell(table(attack, results, "table-1"), *LFT, "first_full")
    # The mean curve ends at 0.2 and 0.7; L2O's tasks have ASR 100 % once, at step 4 or 5 of 10.
    assert found.ours == "never"
    assert found.note == "n = 2, 0% of tasks get there, restricted mean 10 steps"
    other = cell(table(attack, results, "table-1"), *LFT[:3], "l2o", "first", "first_full")
    assert other.ours == "never"
    assert re.fullmatch(r"n = 2, 100% of tasks get there, restricted mean [45] steps", other.note)


def test_failed_seeds_have_columns_of_their_own(sine: Profile, make: Make) -> None:
    results = make(sine, diverged=sine_runs(sine, "lft")[:1])
    for run, scores in zip(sine_runs(sine, "l2o"), (TRAINED, TRAINED[::-1]), strict=False):
        write_history(results, run, scores, error=0.01)
    found = table(sine, results, "table-sine")
    rows = dict(zip(found.rows, found.cells, strict=True))
    of_lft, of_l2o = (rows[f"sine, {name}, first order"][-2:] for name in ("LFT", "L2O"))
    assert [cell.ours for cell in of_lft] == ["1 of 3", "not recorded"]
    assert [cell.ours for cell in of_l2o] == ["0 of 3", "1 of 2"]


def test_what_tells_whether_a_method_is_trained(make: Make) -> None:
    """Of two seeds of LFT the second is unstable; a longer rerun of the first gains much. L2O has
    too few meta-validations, and the run of its second seed is of an older version."""
    profile = report_profile((0, 1), "sine", "attack")
    levels = {"lft": 0.9, "l2o": 0.2, "maml": 0.5, "sgd": 0.6}
    results = make(profile, level=lambda run, _: levels.get(run.method, 0.5))
    lft, l2o = (
        [Run("attack", "mnist", method, "first", seed) for seed in (0, 1)]
        for method in ("lft", "l2o")
    )
    write_history(results, lft[0], TRAINED, error=0.01)
    write_history(results, lft[1], TRAINED, outer=[99.0] * 20, error=0.01)
    write_history(results / "longer", lft[0], [score / 9 for score in TRAINED], error=0.01)
    write_history(results, l2o[0], TRAINED[:5], error=0.01)
    for folder, batches in ((results, 20), (results / "longer", 60)):
        path = folder / lft[0].folder / "run.json"
        facts = json.loads((results / lft[0].folder / "run.json").read_text())
        path.write_text(json.dumps(facts | {"meta_batches": batches}))
    old = results / l2o[1].folder / "history.csv"
    old.write_text("meta_step,family,loss,validation\n1,mnist,2.5,1.5\n")
    found = table(profile, results, "table-trained-attack")
    rows = dict(zip(found.rows, found.cells, strict=True))
    assert found.columns == [
        "the end is good", "stable", "longer does not help", "seeds untrained", "beside SGD",
    ]  # fmt: skip
    texts = [cell.ours for cell in rows["mnist → mnist, LFT"]]
    assert texts[:4] == ["2 of 2", "1 of 2", "0 of 1", "2 of 2"]
    texts = [cell.ours for cell in rows["mnist → mnist, L2O"]]
    assert texts[:4] == ["not recorded", "1 of 1", "not shown", "not recorded"]


def test_l2o_stands_beside_rules_on_the_support_set_that_it_is_trained_on(make: Make) -> None:
    """Its ASR on the query set is behind SGD's; on the support set nobody is ahead of it."""
    profile = report_profile((0, 1, 2, 3, 4), "sine", "attack")
    results = make(profile)
    rows = pd.read_csv(results / "measurements.csv")
    lead = np.where(rows["seed"] % 2, 0.31, 0.3)
    of_l2o = (rows["method"] == "l2o") & (rows["step"] > 0)
    rows["value"] -= lead * (of_l2o & (rows["metric"] == "asr"))
    rows["value"] += lead / 3 * (of_l2o & (rows["metric"] == "asr_support"))
    rows.to_csv(results / "measurements.csv", index=False, na_rep="nan")
    (beside,) = table(profile, results, "table-trained-attack").cells[1][-1:]
    assert (beside.key.method, beside.note) == ("l2o", "ahead")
    assert behind(profile, results)["attack", "mnist", "mnist", "l2o", "first"] == (
        "L2O is behind SGD on ASR"
    )


@pytest.mark.parametrize("which", [slice(None), slice(1)], ids=["every seed", "one seed"])
def test_a_method_that_diverged_has_no_ratio_beside_a_rule(which: slice, make: Make) -> None:
    """A cell says "diverged" where the table of results does, and only there."""
    profile = report_profile((0, 1, 2), "sine", "attack")
    runs = [run for run in profile.runs("attack") if run[1:4] == ("mnist", "lft", "first")]
    results = make(profile, diverged=runs[which])
    number = cell(table(profile, results, "table-1"), *LFT, "asr")
    assert number.status == "diverged"
    for id in ("table-baselines-attack", "table-trained-attack"):
        beside = cell(table(profile, results, id), *LFT, "beside_sgd")
        assert beside.status == "diverged"
        assert (beside.ours == "diverged") == (number.ours == "diverged")
        assert np.isfinite(beside.interval.mean) == np.isfinite(number.interval.mean)
        assert beside.note.endswith(f"LFT: {number.note}")


def test_a_rule_whose_test_tasks_diverged_has_no_ratio_beside_it(make: Make) -> None:
    profile = report_profile((0, 1, 2), "sine", "attack")
    results = make(profile)
    rows = pd.read_csv(results / "measurements.csv")
    of_sgd = (rows["method"] == "sgd") & (rows["metric"] == "asr") & (rows["seed"] == 1)
    rows.loc[of_sgd & (rows["step"] == 10), "value"] = np.nan
    rows.to_csv(results / "measurements.csv", index=False, na_rep="nan")
    means = pd.read_csv(results / "summary.csv")
    of_sgd = (means["method"] == "sgd") & (means["metric"] == "asr") & (means["seed"] == 1)
    means.loc[of_sgd & (means["step"] == 10), "mean"] = np.nan
    means.to_csv(results / "summary.csv", index=False, na_rep="nan")
    beside = cell(table(profile, results, "table-baselines-attack"), *LFT, "beside_sgd")
    assert (beside.ours, beside.note) == ("diverged", "SGD: n = 3, test tasks diverged")


def test_ablations_stand_beside_their_method_with_their_cost(tables: dict[str, Table]) -> None:
    found = tables["table-ablations-sine"]
    assert found.rows == [
        "LFT, first order",
        "LFT, zeroth order",
        f"{NASTY}, first order",
        f"{NASTY}, zeroth order",
    ]
    lft, variant = found.cells[0], found.cells[2]
    assert lft[0].interval == cell(tables["table-sine"], *SINE).interval
    assert (lft[1].ours, variant[1].note) == ("–", "n = 3")
    # Synthetic runs took 1.5, 2.5 and 3.5 CPU seconds, and always 500 MB.
    assert variant[2].ours == f"2.5 ± {stats.t.ppf(0.975, 2) / np.sqrt(3):.1f} s"
    assert variant[3].ours == "500 MB"


def test_changes_are_paired_by_seed(sine: Profile, make: Make) -> None:
    # The seeds differ by far more than the variant from its method.
    levels = {0: 0.1, 1: 0.5, 2: 0.9}
    results = make(
        sine, level=lambda run, _: levels[run.seed] - (0.01 if run.method == "lft-nasty" else 0)
    )
    found = table(sine, results, "table-ablations-sine")
    base, variant = found.cells[0], found.cells[2]
    assert base[0].interval.half_width > 1
    differences = variant[0].interval.mean - base[0].interval.mean
    assert variant[1].interval.mean == pytest.approx(differences, rel=1e-6)
    assert variant[1].interval.half_width < 0.1
    assert variant[1].ours.startswith("+")
    assert variant[1].key.metric == "mse_change"


def test_a_change_needs_the_seed_of_both(sine: Profile, make: Make) -> None:
    lft, variant = sine_runs(sine, "lft"), sine_runs(sine, "lft-nasty")
    results = make(sine, missing=[lft[0], variant[1]])
    assert table(sine, results, "table-ablations-sine").cells[2][1].note == "n = 1/3"


def test_a_variant_without_its_method_has_no_change(sine: Profile, make: Make) -> None:
    results = make(sine, missing=sine_runs(sine, "lft"))
    change = table(sine, results, "table-ablations-sine").cells[2][1]
    assert (change.ours, change.note) == ("missing", "n = 0/3")


def test_methods_that_differ_in_the_meta_gradient_are_ablations(make: Make) -> None:
    values = report_profile((0, 1), "sine").model_dump()
    methods = ["lft", "reptile", "maml", "l2o", "fomaml"]
    values["experiments"]["sine"] |= {"methods": methods, "orders": ["first"]}
    profile = Profile.model_validate(values)
    found = table(profile, make(profile), "table-ablations-sine")
    assert [row.removeprefix("sine, ").removesuffix(", first order") for row in found.rows] == [
        "LFT", NASTY, "Reptile", "MAML", "FOMAML",
    ]  # fmt: skip
    assert [row[1].ours == "–" for row in found.cells] == [True, False, True, False, False]


def test_learning_the_initialisation_too_is_an_ablation_of_the_fine_tuner(make: Make) -> None:
    values = report_profile((0, 1), "sine").model_dump()
    methods = ["maml", "lft", "sgd", "l2o", "lft-init"]
    values["experiments"]["sine"] |= {"methods": methods, "orders": ["first"], "variants": {}}
    profile = Profile.model_validate(values)
    found = table(profile, make(profile), "table-ablations-sine")
    assert found.rows == ["LFT", "LFT + learned init"]
    assert [row[1].ours == "–" for row in found.cells] == [True, False]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_files_are_typed_escaped_and_accessible(profile: Profile, report: Path) -> None:
    names = ("table-1", "table-2", "table-sine", "table-ablations-sine")
    names += ("table-baselines-attack", "table-baselines-classification")
    names += tuple(f"table-trained-{name}" for name in profile.experiments)
    folder = report / "tables"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{suffix}" for name in names for suffix in ("csv", "tex", "html")
    } | {"agreement.csv", "unexplained.csv"}
    numbers = pd.read_csv(folder / "table-2.csv")
    assert numbers["mean"].dtype == numbers["paper"].dtype == np.float64
    assert numbers["paper"].notna().sum() == 13

    html = _Tags()
    html.feed((folder / "table-sine.html").read_text())
    tags = [tag for tag, _ in html.tags]
    assert "script" not in tags
    assert tags.count("caption") == 1
    assert {attrs.get("scope") for tag, attrs in html.tags if tag == "th"} == {"col", "row"}
    assert NASTY in html.text

    latex = (folder / "table-sine.tex").read_text()
    assert r"50 \% of \$\textbackslash x\_1\$ \& \#2 \textbackslash LaTeX\{\}" in latex
    assert latex.isascii()
    assert r"\toprule" in latex
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    for row in body.splitlines()[1:-1]:
        # An unescaped & starts a column; a row has one number and two counts of failed seeds.
        assert len(re.findall(r"(?<!\\)&", row)) == 3
    assert all(path.read_text().isascii() for path in folder.glob("*.tex"))
    assert r"mean $|\delta|$" in (folder / "table-1.tex").read_text()


def test_tables_are_the_same_bytes_again(profile: Profile, report: Path, make: Make) -> None:
    results = make(profile)
    write_tables(profile, results)
    before, after = (
        {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
        for folder in (report, results)
    )
    assert before == after
