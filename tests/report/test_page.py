"""The page as a reader, a screen reader and a browser find it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from jinja2 import UndefinedError
from synthetic import NASTY, report_profile, write_results

from lft.config import Profile
from lft.errors import UsageError
from lft.report import figures
from lft.report.claims import load_claims, read_verdicts
from lft.report.page import write_page
from lft.report.page.drawings import inline
from lft.report.page.verdicts import few_seeds
from lft.report.templates import render
from lft.results.aggregate import aggregate
from lft.storage.json import write_json

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Elements in order, each with its attributes, its ancestors' tags and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str], list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        ancestors = [name for name, _ in self.open]
        self.elements.append((tag, {k: v or "" for k, v in attrs}, ancestors, text))
        if tag not in VOID:
            self.open.append((tag, text))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}, [n for n, _ in self.open], []))

    def handle_endtag(self, tag: str) -> None:
        name, _ = self.open.pop()
        assert name == tag, f"</{tag}> closes <{name}>"

    def handle_data(self, data: str) -> None:
        for _, text in self.open:
            text.append(data)

    def all(self, *tags: str) -> list[tuple[dict[str, str], str]]:
        return [(attrs, "".join(text)) for tag, attrs, _, text in self.elements if tag in tags]


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report / "report.html")


def test_it_is_well_formed_and_ids_are_unique(page: Page) -> None:
    assert page.open == []
    ids = Counter(attrs["id"] for _, attrs, _, _ in page.elements if "id" in attrs)
    assert [id for id, count in ids.items() if count > 1] == []


def test_every_link_leads_somewhere(page: Page, report: Path) -> None:
    ids = {attrs["id"] for _, attrs, _, _ in page.elements if "id" in attrs}
    links = [attrs["href"] for attrs, _ in page.all("a")]
    assert len(links) > 60
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids, link
        elif link != "https://arxiv.org/abs/2009.13714":
            assert (report / link).is_file(), link


def test_references_inside_drawings_resolve(page: Page) -> None:
    ids = {attrs["id"] for _, attrs, _, _ in page.elements if "id" in attrs}
    text = " ".join(v for _, attrs, _, _ in page.elements for v in attrs.values())
    references = re.findall(r"url\(#([^)]+)\)", text)
    references += [a.get("xlink:href", a.get("href", ""))[1:] for a, _ in page.all("use")]
    assert references
    assert set(references) <= ids


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for tag, attrs, _, _ in page.elements:
        assert "src" not in attrs, tag
        if tag != "a":
            for name in ("href", "xlink:href"):
                assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,"))
    styles = "".join(text for _, text in page.all("style"))
    assert "@import" not in styles
    assert "http" not in styles
    assert not page.all("link", "iframe", "object", "embed", "base")


def policy(page: Page) -> str:
    return next(a["content"] for a, _ in page.all("meta") if "http-equiv" in a)


def test_only_the_known_scripts_may_run(page: Page) -> None:
    scripts = page.all("script")
    assert len(scripts) == 4  # of them the curves' numbers
    for attrs, text in scripts:
        if attrs.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy(page)
    assert "default-src 'none'" in policy(page)
    assert "unsafe-eval" not in policy(page)
    assert "script-src 'unsafe-inline'" not in policy(page)


def test_labels_are_inert(page: Page) -> None:
    assert "<script>alert" not in page.source
    headers = [text for _, text in page.all("th")]
    assert any(NASTY in text for text in headers)
    data = next(t for a, t in page.all("script") if a.get("type") == "application/json")
    assert NASTY in {row["method"] for row in json.loads(data)["data"]["values"]}


def test_it_can_be_read_aloud(page: Page) -> None:
    assert page.all("html")[0][0]["lang"] == "en"
    for tag in ("header", "main", "nav", "footer", "h1", "title"):
        assert len(page.all(tag)) == 1, tag
    headings = [int(tag[1]) for tag, _, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))
    drawings = [(a, ancestors) for tag, a, ancestors, _ in page.elements if tag == "svg"]
    assert len(page.all("figure")) == len(page.all("figcaption")) == 13
    told = [a for a, _ in drawings if a.get("aria-hidden") != "true"]
    assert sum("figure" in ancestors for a, ancestors in drawings if a in told) == 12
    assert all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in told)
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a, _ in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("aria-label" in a for a, _ in page.all("div") if a.get("role") == "region")


def test_what_scrolls_can_be_scrolled_by_keyboard(page: Page) -> None:
    for attrs, _ in page.all("div"):
        if "scroll" in attrs.get("class", "").split():
            assert (attrs.get("tabindex"), attrs.get("role")) == ("0", "region")


def test_verdicts_are_told_in_words_and_lead_to_cards(page: Page, report: Path) -> None:
    judged = [row for row in read_verdicts(report).claims if row.kind != "check"]
    words = {row.verdict for row in judged}
    assert "LFT attacks more images than L2O" in page.all("table")[0][1]
    slugs = {str(word).replace(" ", "-") for word in words}
    cells = [t.split("\n")[0].split(" ", 1) for a, t in page.all("td") if a.get("class") in slugs]
    assert len(cells) == len(judged)
    assert {word for _, word in cells} == words
    assert len({symbol for symbol, _ in cells}) == len(words)
    links = [a["href"] for tag, a, above, _ in page.elements if tag == "a" and above[-1] == "th"]
    by_hypothesis = [row.claim for id in load_claims().hypotheses for row in judged
                     if row.hypothesis == id]  # fmt: skip
    assert [link for link in links if link.startswith("#")] == [
        f"#claim-{claim}" for claim in by_hypothesis
    ]


def test_what_is_proven_stands_apart_from_the_verdicts(page: Page) -> None:
    items = [text for _, text in page.all("li") if text.startswith("The recursion of eqs.")]
    assert len(items) == 1
    assert "holds" in items[0]
    assert "The recursion of eqs." not in page.all("table")[0][1]


def test_the_page_says_under_which_version_of_the_claims_its_runs_were_made(page: Page) -> None:
    claims = load_claims()
    assert f"The runs were made under version {claims.version} of {claims.date}." in page.source
    assert "No claim has changed since." in page.source


def test_the_papers_numbers_and_what_they_leave_unexplained_are_listed(page: Page) -> None:
    compared = table(page, "Printed numbers and ours")
    assert len(compared) == 47
    assert {row[-1].split("\n")[0].split("printed")[0] for row in compared} <= {
        "agrees", "differs", "cannot tell", "cannot tellwe never reach it",
    }  # fmt: skip
    rows = table(page, "What the paper’s tables leave unexplained")
    assert ["MNIST", "L2O", "ASR", "85 %", "0 %", "25 %", "42.5 %"] in [row[:7] for row in rows]


def test_hand_designed_rules_are_rows_and_say_who_is_behind(report: Path) -> None:
    rows = pd.read_csv(report / "tables" / "table-baselines-attack.csv")
    row = rows[(rows["trained_on"] == "mnist") & (rows["tested_on"] == "mnist")]
    found = row.set_index("method")
    # Levels: SGD 0.6, MAML 0.5, L2O 0.7, LFT 0.9.
    assert found["mean"].to_dict() == pytest.approx(
        {"maml": -0.1, "l2o": 0.1, "lft": 0.3}, abs=0.03
    )
    assert found.loc["lft", "note"] == "ahead"
    assert found.loc["maml", "note"] in ("behind", "undecided")  # three seeds


def test_verdicts_md_holds_the_first_table_for_a_readme(report: Path) -> None:
    judged = [row for row in read_verdicts(report).claims if row.kind != "check"]
    lines = (report / "verdicts.md").read_text().splitlines()
    cells = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in lines if " " in line]
    assert {len(row) for row in cells} == {5}
    found = {row[0].replace("\\|", "|"): row[4].split(" ", 1)[1] for row in cells[1:]}
    assert found == {row.text: row.verdict for row in judged}


def test_numbers_md_has_every_method_for_a_readme(report: Path) -> None:
    lines = (report / "numbers.md").read_text().splitlines()
    assert sum(line.startswith("| mnist, SGD |") for line in lines) == 1
    assert any("not applicable" in line for line in lines)


def test_shares_are_told_in_per_cent(report: Path) -> None:
    shown = (report / "verdicts.md").read_text().splitlines()[2]
    row = read_verdicts(report).claims[0]
    assert row.claim == "asr-lft-l2o"
    assert row.ours.count(" %") == 2
    assert row.ours in shown
    assert row.effect is not None
    assert row.low is not None
    assert f"| +{100 * row.effect:.1f} [{100 * row.low:.1f}, " in shown
    assert " points |" in shown


def test_numbers_can_be_followed_to_their_runs(page: Page, profile: Profile) -> None:
    links = {attrs["href"] for attrs, _ in page.all("a")}
    assert {"measurements.csv", "theory.csv", "claims.csv", "claims.json", "summary.csv"} <= links
    for name in profile.experiments:
        for run in profile.runs(name):
            assert f"{run.folder.as_posix()}/run.json" in links


def test_theorem_1_is_judged_by_stage(page: Page, profile: Profile) -> None:
    """The synthetic bound is 4 times the gap, the variance part 0.8 of it, and a quarter of the
    gradient is missing on D_tr."""
    caption = "Theorem 1: where the bound holds, and by what factor"
    rows = table(page, caption)
    assert [row[:2] for row in rows[:3]] == [
        ["sine", "initial"], ["sine", "halfway"], ["sine", "best"],
    ]  # fmt: skip
    assert len(rows) == 3 * len(profile.theory.gap.experiments)
    for row in rows:
        assert re.fullmatch(r"0 of \d+", row[2])
        assert float(row[3].split(" to ")[0]) == pytest.approx(4, rel=0.1)
        assert row[4] in ("1.2", "1.3")  # 1.25
        assert re.fullmatch(r"2\d% ± \d%", row[5])
        assert row[6] == "fails"
    for row in table(page, "Theorem 1: exponents of the gap, and of the bound"):
        assert len(row) == 2 + 2 * 3
        for slope in row[2:]:
            ours, bound = re.fullmatch(r"(-[\d.]+) ± [\d.]+ \((-[\d.]+)\)", slope).groups()
            assert float(ours) == pytest.approx(float(bound), abs=0.03)


def table(page: Page, caption: str) -> list[list[str]]:
    """Texts of the cells of a table's body."""
    rows: list[list[str]] = []
    current = ""
    for tag, _, ancestors, text in page.elements:
        if tag == "caption":
            current = "".join(text)
        elif current == caption and "tbody" in ancestors:
            if tag == "tr":
                rows.append([])
            elif tag in ("th", "td"):
                rows[-1].append("".join(text))
    return rows


def test_open_questions_show_choice_and_effect(page: Page) -> None:
    rows = {attrs["id"]: text for attrs, text in page.all("tr") if "id" in attrs}
    assert len(rows) > 15
    # The profile has one variant, of the segment's length.
    assert re.search(r"\(sine\): MSE \d\.\d\d → \d\.\d\d \([+-]\d", rows["O5"])
    assert "measured by profile tiny" in rows["O5"]
    assert "none measured here" in rows["O1"]


def test_open_questions_lead_to_the_report_that_answers_them(surrounded: Path) -> None:
    found = Page(surrounded / "report.html")
    assert "measured by profile ablation" in "".join(text for _, text in found.all("small"))
    assert "../ablation/report.html" in {attrs["href"] for attrs, _ in found.all("a")}


def test_the_page_is_the_same_bytes_again(
    page: Page, report: Path, profile: Profile, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(report, tmp_path / report.name))
    (copy / "report.html").unlink()
    write_page(profile, copy)
    assert (copy / "report.html").read_text(encoding="utf-8") == page.source


def test_a_template_must_get_all_that_it_asks_for() -> None:
    with pytest.raises(UndefinedError):
        render("table.html.j2", table={"corner": "x", "columns": [], "rows": []})  # no caption


def test_a_missing_file_is_named(profile: Profile, report: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(report, tmp_path / "copy"))
    (copy / "figures" / "figure-2.svg").unlink()
    with pytest.raises(UsageError, match=r"figure-2\.svg"):
        write_page(profile, copy)
    (copy / "claims.json").unlink()
    with pytest.raises(UsageError, match=r"claims\.json"):
        write_page(profile, copy)


def test_diverged_and_missing_runs_and_stand_ins_are_told(
    write_report: Callable[[Profile, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "BUILDERS", figures.BUILDERS[:4])
    profile = report_profile()
    nasty = {"label": NASTY, "stands_in_for": "MNIST", "note": f"{NASTY} note"}
    sources = {name: source.model_copy(update=nasty) for name, source in profile.sources.items()}
    profile = profile.model_copy(update={"sources": sources})
    attack, sine = next(profile.runs("attack")), list(profile.runs("sine"))
    write_results(profile, tmp_path, diverged=[attack], missing=sine)
    shutil.rmtree(tmp_path / "theory")
    manifest = tmp_path / attack.folder / "run.json"
    write_json(manifest, json.loads(manifest.read_text()) | {"reason": f"{NASTY} reason"})
    aggregate(profile, tmp_path)
    write_report(profile, tmp_path)
    page = Page(tmp_path / "report.html")
    text = "".join(t for _, t in page.all("main"))
    assert f"{NASTY} reason" in text
    assert f"{NASTY}* for MNIST" in "".join(t for _, t in page.all("header"))
    assert "not meta-trained yet" in text
    assert "The theory has not been measured" in text
    assert "nothing was measured for it: Figure 4," in text
    banner = next(t for a, t in page.all("div") if a.get("class") == "banner")
    assert "Stand-in data" in banner
    assert f"{NASTY} note" in banner
    assert "<script>alert" not in page.source


def test_inlined_drawings_take_the_theme_and_a_prefix() -> None:
    svg = (
        '<?xml version="1.0"?><svg width="10pt" height="5pt"><metadata>x</metadata>'
        '<g id="a"><path id="b"/></g>'
        '<path style="fill: #1b1f24; stroke: #d55e00; clip-path: url(#a)"/></svg>'
    )
    inlined = inline(svg, "figure-9", 'three "quoted" words')
    assert inlined == (
        '<svg role="img" aria-label="three &#34;quoted&#34; words">'
        '<g id="figure-9-a"><path/></g>'
        '<path style="fill: currentColor; stroke: var(--lft, #D55E00); '
        'clip-path: url(#figure-9-a)"/></svg>'
    )


class Visit:
    """What headless Chromium made of a page: its elements, console messages and requests."""

    def __init__(self, chromium: str, page: Path, folder: Path, *options: str) -> None:
        log = folder / "net.json"
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--enable-logging=stderr", f"--log-net-log={log}",
            f"--user-data-dir={folder / 'user'}", "--virtual-time-budget=5000", *options,
            "--dump-dom", page.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        self.elements = done.stdout
        self.console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        events = json.loads(log.read_text(encoding="utf-8"))["events"]
        self.requests = [
            event["params"]["url"]
            for event in events
            if event.get("params", {}).get("initiator", "not an origin") != "not an origin"
        ]


@pytest.fixture(scope="module")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None and not os.environ.get("CI"):
        pytest.skip("no chromium here; continuous integration installs it")
    assert path, "continuous integration must install chromium"
    return path


def test_a_browser_draws_the_curves_without_complaint_or_request(
    chromium: str, report: Path, tmp_path: Path
) -> None:
    visit = Visit(chromium, report / "report.html", tmp_path)
    assert visit.console == []
    assert visit.requests == []
    assert "mark-line" in visit.elements
    curves = visit.elements[visit.elements.index('id="interactive"') :]
    assert curves.count('type="checkbox"') == 5 + 3  # methods with variant, seeds
    assert curves.count("<option") == 6 + 6 + 2  # cells of the three experiments
    assert 'stroke="var(--lft, #D55E00)"' in visit.elements


def test_the_visit_would_notice_messages_and_requests(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<!doctype html><img src="http://picture.invalid/a.png"><script>console.error("x")</script>'
    )
    visit = Visit(chromium, page, tmp_path)
    assert len(visit.console) == 1
    assert visit.requests == ["http://picture.invalid/a.png"]


FRAME = """<!doctype html><iframe id="frame" width="{width}" height="900" src="{page}"></iframe>
<pre id="found"></pre><script>
const frame = document.getElementById("frame");
const shown = (part) => [...frame.contentDocument.querySelectorAll(part)]
  .filter((element) => element.getClientRects().length).map((element) => element.id);
frame.onload = () => {{
  const inside = frame.contentDocument;
  const found = {{
    width: inside.documentElement.scrollWidth,
    table: inside.querySelector(".verdict-table").getClientRects().length,
    cards: shown("article").length,
  }};
  inside.querySelector("#filters [value=supported]").click();
  Object.assign(found, {{chosen: shown("article"), said: inside.getElementById("filters-said").textContent}});
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>"""  # noqa: E501


@pytest.mark.parametrize("width", [400, 1600])
def test_a_phone_sees_cards_and_nobody_scrolls_sideways_and_filters_filter(
    chromium: str, report: Path, tmp_path: Path, width: int
) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width, page=(report / "report.html").as_uri()))
    visit = Visit(chromium, frame, tmp_path, "--allow-file-access-from-files")
    assert visit.console == []
    told = re.search(r'<pre id="found">(.*?)</pre>', visit.elements)
    assert told
    found = json.loads(told[1])
    assert found["width"] <= width
    assert bool(found["table"]) == (width > 400)
    planned = [r for r in read_verdicts(report).claims if r.status != "not in this profile"]
    assert found["cards"] == len(planned)
    supported = [f"claim-{row.claim}" for row in planned if row.verdict == "supported"]
    assert sorted(found["chosen"]) == sorted(supported)
    assert found["said"] == f"{len(supported)} of {len(planned)} claims"


def test_table_and_forest_plot_show_in_how_many_readings_a_claim_holds(
    page: Page, surrounded: Path
) -> None:
    caption = "The paper's claims, its numbers and ours"
    without, rows = (table(one, caption) for one in (page, Page(surrounded / "report.html")))
    shown = {cells[0]: cells[-1] for cells in rows if len(cells) > 1}
    found = next(text for claim, text in shown.items() if "LFT regresses better than L2O" in claim)
    assert found == "80% [68%, 90%] of 50; their majority disagrees"
    assert "not explored" in shown.values()
    assert max(map(len, rows)) == max(map(len, without)) + 1
    text = (surrounded / "report.html").read_text()
    plot = text[text.index('<figure id="forest">') : text.index("<figcaption>")]
    beside = {
        claim: re.search(r'<span class="share">([^<]*)', part)[1]  # type: ignore[index]
        for claim, part in re.findall(r'href="#claim-([^"]+)">(.*?)</a>', plot, re.DOTALL)
    }
    assert beside.pop("sine-lft-l2o-first") == "80 %"
    assert set(beside.values()) == {"–"}  # not explored, or decided by no reading


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (1, "One seed decides nothing."),
        (2, "Two seeds decide nothing."),
        (3, "Three seeds decide nothing."),
        (4, ""),
    ],
)
def test_few_seeds_are_said_to_decide_nothing(n: int, said: str, profile: Profile) -> None:
    assert few_seeds(profile.model_copy(update={"seeds": tuple(range(n))})) == said


def test_the_page_says_that_three_seeds_decide_nothing(report: Path) -> None:
    assert "<strong>Three seeds decide nothing.</strong>" in (report / "report.html").read_text()
