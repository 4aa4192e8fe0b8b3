"""The forest plot, the claims' cards and the filters, as a reader finds them on the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup, Tag

from lft.config import Profile
from lft.errors import UsageError
from lft.report.claims import CellClaim, Verdict, load_claims, read_verdicts
from lft.report.claims.shown import SYMBOLS
from lft.report.page import write_page
from lft.report.page.cards import row_filter
from lft.report.page.charts import ratio_ticks
from lft.report.page.overview import MARKS, forest, span
from lft.report.page.sections import judged
from lft.report.page.speed import speed
from lft.storage.json import write_json


def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def page(report: Path) -> BeautifulSoup:
    return read(report / "report.html")


@pytest.fixture(scope="module")
def planned(report: Path) -> dict[str, Verdict]:
    """Verdicts of the claims that the profile speaks of, by id."""
    rows = read_verdicts(report).claims
    return {row.claim: row for row in rows if row.status != "not in this profile"}


def card(page: BeautifulSoup, claim: str) -> Tag:
    (found,) = page.select(f"article#claim-{claim}")
    return found


def fact(card: Tag, name: str) -> str:
    """What stands beside a name in a card's lists."""
    (term,) = [dt for dt in card.find_all("dt") if dt.text == name]
    return " ".join(term.find_next_sibling("dd").text.split())


# ---------------------------------------------------------------- the forest plot


def test_every_point_is_a_link_with_a_name_to_its_card(
    page: BeautifulSoup, planned: dict[str, Verdict]
) -> None:
    links = page.select("#forest a.row")
    assert sorted(link["href"] for link in links) == sorted(f"#claim-{id}" for id in planned)
    for link in links:
        row = planned[link["href"].removeprefix("#claim-")]
        name = " ".join(link.text.split())
        assert name.startswith(row.text)
        assert (row.verdict or row.check or row.status) in name
        assert ("times the smallest of interest" in name) == (row.effect is not None)
        assert card(page, row.claim).h4.text == row.text


def test_claims_stand_under_their_hypothesis_and_section(
    page: BeautifulSoup, planned: dict[str, Verdict]
) -> None:
    hypotheses = load_claims().hypotheses
    for link in page.select("#forest a.row"):
        row = planned[link["href"].removeprefix("#claim-")]
        group, panel = link.find_parents("section")[:2]
        assert group.h4.text == hypotheses[row.hypothesis]
        if "sec. 4" in row.place.lower():
            assert panel.h3.text.startswith("Section 4")
        if "sec. 5" in row.place.lower():
            assert panel.h3.text.startswith("Section 5")


def test_a_mark_stands_where_its_effect_is(
    page: BeautifulSoup, planned: dict[str, Verdict]
) -> None:
    """Linear in asinh(effect / smallest effect of interest); 0 in the middle, the claim's side on
    the right. Places are rounded to hundredths of a per cent."""
    claims = {claim.id: claim for claim in load_claims().claims}
    ends = page.select_one("#forest .axis").find_all("text")[-1]
    end, right = float(ends.text), float(ends["x"].rstrip("%"))
    seen = 0
    for link in page.select("#forest a.row"):
        row = planned[link["href"].removeprefix("#claim-")]
        marks = link.select('use[href^="#mark-"]')
        assert len(marks) == (row.effect is not None)
        if row.effect is None or row.margin is None or row.unit not in ("points", "ratio"):
            continue
        size = row.effect / row.margin
        if row.unit == "ratio":
            size = np.log(row.effect) / np.log(row.margin)
        claim = claims[row.claim]
        assert isinstance(claim, CellClaim)
        if load_claims().metrics[claim.metric].better == "lower":
            size = -size
        expected = 50 + (right - 50) * np.arcsinh(size) / np.arcsinh(end)
        assert float(marks[0]["x"].rstrip("%")) == pytest.approx(expected, abs=0.006)
        seen += 1
    assert seen > 20


def test_the_papers_side_is_on_the_right(page: BeautifulSoup, planned: dict[str, Verdict]) -> None:
    """The synthetic measurements follow the paper's orderings: every supported claim is there."""
    supported = [row for row in planned.values() if row.verdict == "supported"]
    assert len(supported) > 5
    for row in supported:
        if row.kind in ("better", "wider"):
            mark = page.select_one(f'#forest a.row[href="#claim-{row.claim}"] use[href^="#mark-"]')
            assert float(mark["x"].rstrip("%")) > 50, row.claim


def test_intervals_beyond_the_axis_end_in_arrows(report: Path) -> None:
    rows = judged(list(read_verdicts(report).claims))
    wide = next(row for row in rows if row.claim.id == "asr-lft-l2o")
    wide = wide._replace(row=wide.row.model_copy(update={"low": -1e3, "high": 1e3}))
    (point,) = forest([wide]).panels[0].groups[0].points
    assert (point.beyond_low, point.beyond_high) == (True, True)
    assert (point.low, point.high) == (3.0, 97.0)


def test_a_statement_of_the_theory_is_in_units_of_its_own_margin(report: Path) -> None:
    rows = judged(list(read_verdicts(report).claims))
    row = next(row for row in rows if row.claim.id == "theorem-1-sigma")
    found = span(row, load_claims().metrics)
    assert found is not None
    assert row.row.effect is not None
    assert row.row.margin is not None
    assert found.value == pytest.approx(row.row.effect / row.row.margin)


def test_shares_of_readings_have_a_column_where_there_are_any(
    report: Path, page: BeautifulSoup
) -> None:
    rows = judged(list(read_verdicts(report).claims))
    assert not page.select("#forest .share")
    drawn = forest(rows, {"asr-lft-l2o": 0.25})
    points = [p for panel in drawn.panels for group in panel.groups for p in group.points]
    shares = {point.judged.claim.id: point.share for point in points}
    assert drawn.shares
    assert shares.pop("asr-lft-l2o") == 0.25
    assert set(shares.values()) == {None}


def test_every_verdict_has_a_shape_of_its_own(page: BeautifulSoup) -> None:
    assert list(MARKS) == list(SYMBOLS)
    assert len(set(MARKS.values())) == len(MARKS)
    shapes = {path["id"]: path["class"] for path in page.select(".shapes path.shape")}
    assert set(shapes) == {f"mark-{word.replace(' ', '-')}" for word in MARKS}


def test_a_claim_that_is_not_registered_any_more_is_named(report: Path) -> None:
    rows = read_verdicts(report).claims
    with pytest.raises(UsageError, match="judges 'gone'"):
        judged([rows[0].model_copy(update={"claim": "gone"})])


# ---------------------------------------------------------------- cards


def test_a_card_holds_all_that_the_table_says(
    page: BeautifulSoup, planned: dict[str, Verdict]
) -> None:
    """A phone shows cards in place of the table."""
    rows = page.select(".verdict-table tbody tr[data-verdict]")
    assert len(rows) == sum(row.kind != "check" for row in planned.values())
    for row in rows:
        found = " ".join(card(page, row.a["href"].removeprefix("#claim-")).text.split())
        for cell in row.find_all(["th", "td"])[:10]:
            for text in cell.find_all(string=True):
                words = " ".join(text.split()).strip("?✓✗≈=∅ ")
                if words not in ("", "–", "– vs –") and "“" not in words and '"' not in words:
                    assert words.removesuffix(" vs –").removeprefix("– vs ") in found


def test_cards_show_a_dot_for_every_seed_and_the_papers_number(
    page: BeautifulSoup, profile: Profile
) -> None:
    found = card(page, "asr-lft-l2o")
    assert len(found.select(".strip circle")) == 2 * len(profile.seeds)
    assert len(found.select('.strip use[href="#paper"]')) == 2
    assert fact(found, "Paper") == "100 % vs 85 %"
    assert not card(page, "sine-lft-l2o-zeroth").select('use[href="#paper"]')


def test_dots_are_the_seeds_means(page: BeautifulSoup, report: Path) -> None:
    summary = pd.read_csv(report / "summary.csv")
    row = next(c for c in load_claims().claims if c.id == "asr-lft-l2o")
    assert isinstance(row, CellClaim)
    rows = summary.query(row_filter(row, f"step == {summary['step'].max()}"))
    label = card(page, "asr-lft-l2o").select_one(".strip")["aria-label"]
    for method, name in (("lft", "LFT"), ("l2o", "L2O")):
        means = 100 * rows[rows["method"] == method].sort_values("seed")["mean"]
        assert f"{name}: {', '.join(f'{mean:.4g} %' for mean in means)}" in label


def test_cards_draw_the_effect_against_the_steps(page: BeautifulSoup, report: Path) -> None:
    data = pd.read_csv(report / "figures" / "figure-effects-attack.csv")
    effects = data[data["claim"] == "asr-lft-l2o"].set_index("step")["effect"]
    label = card(page, "asr-lft-l2o").select_one(".effect")["aria-label"]
    last = effects.index[-1]
    assert f"{100 * effects[last]:+.3g} after {last} steps" in label.replace("−", "-")


def test_a_filter_selects_the_rows_of_both_cells(page: BeautifulSoup, report: Path) -> None:
    summary = pd.read_csv(report / "summary.csv")
    columns = ["trained_on", "tested_on", "method", "order"]
    seen = 0
    for claim in load_claims().claims:
        if not isinstance(claim, CellClaim):
            continue
        found = card(page, claim.id)
        if fact(found, "Ours") == "–":
            continue
        expression = fact(found, "Rows").partition(": ")[2]
        rows = summary.query(expression)
        assert set(rows[columns].itertuples(index=False, name=None)) == {claim.a, claim.b}
        assert set(rows["experiment"]) == {claim.experiment}
        seen += 1
    assert seen > 30


def test_a_card_repeats_its_claim(page: BeautifulSoup, profile: Profile) -> None:
    assert fact(card(page, "asr-lft-l2o"), "Repeat") == (
        f"snakemake --cores 2 claim --config claim=asr-lft-l2o profile={profile.name}"
    )


def test_the_cost_is_the_cpu_time_of_what_a_claim_needs(page: BeautifulSoup) -> None:
    # Each method: 1.5, 2.5 and 3.5 CPU-seconds for the three seeds.
    assert fact(card(page, "asr-lft-l2o"), "Cost") == "0.2 CPU-minutes in 6 meta-trainings"
    # A lead on transfer is of one method, so that three trainings are enough.
    assert fact(card(page, "transfer-drop-lft"), "Cost") == "0.1 CPU-minutes in 3 meta-trainings"


def test_theory_cards_have_a_lane_for_each_experiment(
    page: BeautifulSoup, profile: Profile
) -> None:
    found = card(page, "theorem-1-sigma")
    lanes = [text.text for text in found.select(".strip .lane")]
    assert lanes == list(profile.theory.gap.experiments)
    assert len(found.select(".strip circle")) == len(lanes) * len(profile.seeds)


# ---------------------------------------------------------------- filters


def test_points_cards_and_rows_say_the_same_to_the_filters(
    page: BeautifulSoup, planned: dict[str, Verdict]
) -> None:
    names = ("data-verdict", "data-section", "data-experiment")
    found: dict[str, set[tuple[str, ...]]] = {claim: set() for claim in planned}
    for item in page.select("[data-verdict]"):
        id = item.get("id") or item.a["href"][1:]
        found[id.removeprefix("claim-")].add(tuple(item[name] for name in names))
    assert {len(values) for values in found.values()} == {1}
    for claim, row in planned.items():
        ((verdict, _, _),) = found[claim]
        assert verdict == (row.verdict or row.check or row.status)
    offered = {option.text for option in page.select("#filters option")} - {"all"}
    assert offered == {value for ((_, *rest),) in found.values() for value in rest}
    boxes = {box["value"] for box in page.select("#filters input")}
    assert {verdict for ((verdict, _, _),) in found.values()} <= boxes


def test_without_javascript_all_is_shown_and_nothing_can_be_filtered(page: BeautifulSoup) -> None:
    assert not page.select("[data-verdict][hidden], [data-group][hidden]")
    assert all(box.has_attr("hidden") for box in page.select("#filters input"))
    assert page.select_one("#filters .menus").has_attr("hidden")


# ---------------------------------------------------------------- parts that may be missing


def test_figures_and_tables_say_what_made_them(page: BeautifulSoup, profile: Profile) -> None:
    for figure in page.select("figure:not(#forest)"):
        assert figure.select_one(f'a[href="figures/{figure["id"]}.csv"]')
        assert f"lft figures --profile {profile.name}" in figure.figcaption.text
    made = page.select_one("#figure-2 .made").text
    assert "lft.report.figures.finetuning.success_rate" in made
    assert page.select("#tables .made")


def test_speed_is_drawn_from_the_benchmarks_beside_the_run(
    page: BeautifulSoup, surrounded: Path
) -> None:
    assert not page.select('#speed, a[href="#speed"]')
    found = read(surrounded / "report.html")
    assert found.select('nav a[href="#speed"]')
    rows = [[cell.text for cell in row.find_all("td")] for row in found.select("#speed tbody tr")]
    assert [row[:2] for row in rows] == [["own kernel", "2"], ["loop", "8 (4.0×)"]]
    assert [bar["width"] for bar in found.select("#speed rect")] == ["25.0%", "100.0%"]
    assert (surrounded / found.select_one("#speed .files a")["href"]).is_file()


@pytest.mark.parametrize("groups", [{"g": {}}, {"g": {"a": 0.0}}, {"g": [1]}, {"g": {"a": "x"}}])
def test_damaged_benchmarks_are_named(groups: dict[str, object], tmp_path: Path) -> None:
    write_json(tmp_path / "benchmarks/p.json", {"processor": "P", "torch": "2", "groups": groups})
    with pytest.raises(UsageError, match=r"p\.json: not what make benchmark writes"):
        list(speed(tmp_path / "run"))


def test_trainings_say_whether_they_came_to_their_end(surrounded: Path, profile: Profile) -> None:
    """One that got worse is not trained; what two meta-validations show is not enough."""
    rows = read(surrounded / "report.html").select(".trainings tbody tr")
    named = {tuple(c.text for c in row.find_all(["th", "td"])[:2]): row for row in rows}
    found = named["LFT", "mnist"]
    assert [" ".join(word.text.split()) for word in found.select(".ending")] == [
        "trained (1 seed)", "not trained (1 seed)", "not recorded (1 seed)",
    ]  # fmt: skip
    assert len(found.select(".spark path")) == len(profile.seeds)


@pytest.mark.parametrize(
    ("least", "most", "ratios"),
    [
        (0.96, 1.15, [1, 1.1]),
        (0.6, 4.5, [1 / 1.5, 1, 1.5, 2, 3]),
        (0.18, 6, [1 / 5, 1 / 2, 1, 2, 5]),
        (0.009, 30, [1 / 100, 1 / 10, 1, 10]),
        (1e-13, 2, [1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1]),
    ],
)
def test_ratios_beside_a_curve_are_round(least: float, most: float, ratios: list[float]) -> None:
    assert np.exp(ratio_ticks(np.log(least), np.log(most))) == pytest.approx(ratios)


def test_a_profile_without_the_papers_claims_has_a_page(
    report: Path, profile: Profile, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(report, tmp_path / "run"))
    claims = json.loads((copy / "claims.json").read_text())
    for row in claims["claims"]:
        row["status"] = "not in this profile"
    write_json(copy / "claims.json", claims)
    write_page(profile, copy)
    page = read(copy / "report.html")
    assert not page.select("#forest, #filters, article, .verdict-table")
    assert "none of the paper’s claims" in page.select_one("#claims").text
    assert page.select("#table-1")
