"""Every number in the README and in docs that a run measured, and its file."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lft.config import load_profile
from lft.report.claims import read_verdicts
from lft.report.claims.agreement import agreement as compared
from lft.report.claims.model import STEP
from lft.report.statistics import ALPHA, detectable

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"

NAMES = re.compile(
    r"CIFAR-10|L2O|arXiv \S+|sec\. \d|eqs?\. [\d, and]+|90 %|95 %|80 %|\(eq[^)]*\)|`[^`]*`"
    r"|\]\([^)]*\)|step 5\b|step 100|100 steps|100 fine-tuning steps|within 200"
)
"""Numbers that say which thing is meant, not what came out."""
SETTINGS = {
    "1000 training tasks": ("classification", "training", "tasks", 1000),
    "and 100 (attacks)": ("attack", "testing", "tasks", 100),
    "or 500 test tasks": ("classification", "testing", "tasks", 500),
}


@pytest.fixture(scope="module")
def mean() -> Callable[..., float]:
    """Mean over seeds and test tasks of a method's metric."""
    frame = pd.read_csv(REFERENCE / "summary.csv")
    keys = ["experiment", "trained_on", "tested_on", "method", "order", "metric", "step"]
    values = frame.groupby(keys)["mean"].mean()
    return lambda *key, order="first": float(values[(*key[:4], order, *key[4:])])


@pytest.fixture(scope="module")
def facts(mean: Callable[..., float]) -> list[str]:
    """Pieces of the texts, their numbers put in from files."""
    found = read_verdicts(REFERENCE)
    words = Counter(row.verdict for row in found.claims)
    rows = {row.claim: row for row in found.claims}
    n, lead = len(found.family), rows["asr-lft-l2o"]
    of_seeds = pd.read_csv(REFERENCE / "summary.csv")
    chosen = (
        (of_seeds["experiment"] == "attack")
        & (of_seeds["trained_on"] == "mnist")
        & (of_seeds["tested_on"] == "mnist")
        & (of_seeds["metric"] == "asr")
        & (of_seeds["step"] == 100)
    )
    leads = of_seeds[chosen].pivot_table(index="seed", columns="method", values="mean")
    spread = (leads["lft"] - leads["l2o"]).std()
    assert lead.detectable is not None
    assert lead.detectable == pytest.approx(
        detectable(spread * (2 / 0.4463) ** 0.5, 3, 0.05 / n), rel=1e-3
    )  # 0.4463: the 0.2 quantile of χ² with two degrees of freedom, from a table
    agreement = Counter(pd.read_csv(REFERENCE / "tables" / "agreement.csv")["verdict"])
    assert agreement["differs"] == 4
    (left,) = (row for row in compared(load_profile("reference"), REFERENCE) if row.p < ALPHA)
    assert (left.trained_on, left.tested_on) == ("mnist+cifar10", "mnist+cifar10")
    assert (left.method, left.metric, left.verdict) == ("l2o", "asr", "differs")
    unexplained = len(pd.read_csv(REFERENCE / "tables" / "unexplained.csv"))
    heavy = pd.read_csv(ROOT / "results/alternatives/alternatives.csv")
    heavy = heavy[heavy["alternative"] == "lft-heavy"].set_index("metric")

    def asr(method: str, trained_on: str, tested_on: str, step: int = 100, of: str = "") -> str:
        key = ("attack", trained_on, tested_on, method, f"asr{of}", step)
        return f"{100 * mean(*key):.0f}"

    def accuracy(method: str, step: int = 100) -> str:
        return f"{100 * mean('classification', 'cifar10', 'cifar10', method, 'accuracy', step):.0f}"

    def delta(method: str) -> str:
        return f"{mean('attack', 'mnist', 'mnist', method, 'distortion', 100):.2f}"

    def mse(method: str, step: int = 100) -> str:
        return f"{mean('sine', 'sine', 'sine', method, 'mse', step):.2f}"

    both = ("classification", "mnist+cifar10", "mnist")
    early, late = (
        100 * (mean(*both, "lft", "accuracy", k) - mean(*both, "l2o", "accuracy", k))
        for k in (5, 100)
    )
    mnist = ("mnist", "mnist")
    assert lead.effect is not None
    return [
        f"f {n} empirical claims {words['inconclusive']} are inconclusive and {words['vacuous']}",
        f"standard deviation of {100 * spread:.0f} points",
        f"with {n} claims",
        f"only from {100 * lead.detectable:.0f} points on",
        f"That lead is {100 * lead.effect:.0f} points",
        f"an adjusted p of {lead.p:.2f}",
        f"{agreement['cannot tell']} the intervals are too wide to tell",
        f"of the paper's {agreement.total()} printed",
        "Of the four, one is left after Holm's adjustment, L2O's success trained and tested on "
        f"both sources (p = {left.p:.3f}): {left.printed} in the paper, "
        f"{100 * left.mean:.0f} % here",
        f"attacks unseen CIFAR-10 in {asr('adam', 'mnist', 'cifar10')} % of",
        f"MNIST and in {asr('adam', 'mnist+cifar10', 'cifar10')} % from the one for both sources, "
        f"LFT in {asr('lft', 'mnist', 'cifar10')} and {asr('lft', 'mnist+cifar10', 'cifar10')} %",
        f"SGD has {accuracy('sgd')} %, Adam {accuracy('adam')} %, LFT {accuracy('lft')} % and L2O "
        f"{accuracy('l2o')} %",
        f"(CIFAR-10, CNN): {accuracy('maml')} %, where the paper has 66 %",
        "reaches the paper's 66 %",
        f"{-early:.1f} points behind L2O at step 5 and {late:.1f} points ahead at step 100",
        f"its error is {mse('lft')}, where the untrained start has {mse('lft', 0)}, L2O "
        f"{mse('l2o')}, Adam {mse('adam')} and MAML, from a learned initialisation, {mse('maml')}",
        f"fools {asr('l2o', *mnist, of='_support')} % of the support images after 100 steps, with "
        f"a perturbation of {delta('l2o')} per pixel, and ever fewer unseen ones: "
        f"{asr('l2o', *mnist, step=5)} % after five steps, {asr('l2o', *mnist)} % after 100",
        f"larger perturbation**, {delta('lft')} per pixel where L2O has {delta('l2o')} and SGD "
        f"{delta('sgd')}",
        f"it is {heavy.loc['distortion', 'mean']:.2f} instead of "
        f"{heavy.loc['distortion', 'base']:.2f}, and "
        f"{-100 * heavy.loc['asr', 'difference']:.0f} points",
        f"{unexplained} of those for both sources",
        "with 5,000 MNIST digits",
        *SETTINGS,
    ]


def alternatives(name: str, experiment: str, alternative: str, metric: str) -> pd.Series[float]:
    """A row of a kept alternatives.csv, with half the interval."""
    rows = pd.read_csv(ROOT / "results" / name / "alternatives.csv").set_index(
        ["experiment", "alternative", "metric"]
    )
    rows = rows[rows["order"] == "first"].assign(half=(rows["high"] - rows["low"]) / 2)
    row: pd.Series[float] = rows.loc[(experiment, alternative, metric)]
    return row


def signed(value: float, decimals: int, scale: float = 100) -> str:
    return f"{scale * value:+.{decimals}f}".replace("-", "−")


def cpu_seconds(name: str, experiment: str = "*", method: str = "*") -> float:
    """Of the meta-trainings of a kept run; wall time where an older version recorded no other."""
    pattern = f"{experiment}/*/{method}/seed*/run.json"
    paths = (ROOT / "results" / name / "runs").glob(pattern)
    found = [json.loads(path.read_text()) for path in paths]
    assert found
    return sum(facts.get("cpu_seconds") or facts["seconds"] for facts in found)


@pytest.fixture(scope="module")
def answers() -> list[str]:
    """Pieces of what docs/explanation/open-questions.md says, their numbers put in from files."""

    def change(experiment: str, alternative: str, metric: str) -> str:
        row = alternatives("ablation", experiment, alternative, metric)
        if metric == "mse":
            change = f"{signed(row['difference'], 2, 1)} ± {row['half']:.2f}"
            return f"{row['base']:.2f} → {row['mean']:.2f}, {change}"
        numbers = f"{100 * row['base']:.0f} % → {100 * row['mean']:.0f} %"
        return f"{numbers}, {signed(row['difference'], 0)} ± {100 * row['half']:.0f}"

    def slower(experiment: str) -> str:
        exact, dropped = (
            cpu_seconds("ablation", experiment, f"{name}-first") for name in ("lft-exact", "lft")
        )
        return f"{exact / dropped:.1f}"

    def of(name: str, metric: str) -> pd.Series[float]:
        return alternatives("alternatives", "attack", name, metric)

    whole = alternatives("ablation", "attack", "lft-whole", "distortion")
    light, heavy = of("lft-light", "distortion"), of("lft-heavy", "distortion")
    cost, four = of("lft-heavy", "asr"), of("lft-classes", "distortion")
    widths = [
        of(f"l2o-{name}", "asr")["half"]
        for name in ("classes", "images", "light", "heavy", "probability")
    ]
    assert 0.9 < min(widths) < 1 < max(widths) < 1.5
    extra = (
        pd.read_csv(ROOT / "results/supplement/summary.csv")
        .groupby(["experiment", "trained_on", "tested_on", "method", "metric", "step"])["mean"]
        .mean()
    )

    def asr(method: str, n: int, step: int) -> str:
        where = ("support", "support-2", f"support-{n}", method, "asr", step)
        return f"{100 * extra[where]:.0f}"

    def shots(method: str) -> str:
        one, five, ten = (
            f"{100 * round(extra['shots', n, n, method, 'accuracy', 50], 6):.0f}"
            for n in ("one-shot", "five-shot", "ten-shot")
        )
        return f"{one}, {five} and {ten} %"

    few = [asr("lft", n, 100) for n in (1, 2, 5, 15)]
    return [
        f"{slower('sine')} (sine) to {slower('classification')} (CNN) times",
        f"ASR {change('attack', 'lft-exact', 'asr')})",
        f"accuracy ({change('classification', 'lft-exact', 'accuracy')})",
        f"error ({change('sine', 'lft-exact', 'mse')})",
        f"search's segments of 10 (mean |δ| {whole['base']:.2f} → {whole['mean']:.2f})",
        "λ = 20 in place of 5 halves LFT's perturbation (mean |δ| "
        f"{heavy['base']:.2f} → {heavy['mean']:.2f}) and costs {-100 * cost['difference']:.0f} ± "
        f"{100 * cost['half']:.0f} points",
        f"with λ = 1 the perturbation grows beyond use ({light['mean']:.1f})",
        f"smaller perturbation ({signed(four['difference'], 2, 1)} ± {four['half']:.2f})",
        "LFT trained on 20 steps in place of 100 attacks",
        "intervals of about ± 100 points",
        f"has an ASR of {', '.join(few[:3])} and {few[3]} % with 1, 2, 5 and 15 images",
        f"on 50 images, 300 steps, reach {asr('sgd', 50, 300)} and {asr('adam', 50, 300)} %",
        f"with 1, 5 and 10 shots ({shots('lft')} against {shots('l2o')})",
        f"MAML has {shots('maml')}",
        "In 5-way classification",
    ]


def test_every_number_about_open_questions_comes_from_a_file(answers: list[str]) -> None:
    path = ROOT / "docs/explanation/open-questions.md"
    page = path.read_text(encoding="utf-8")
    text = " ".join(re.sub(r"```.*?```", "", page, flags=re.DOTALL).split())
    assert [piece for piece in answers if piece not in text] == []
    for piece in answers:
        text = text.replace(piece, " ")
    names = re.compile(NAMES.pattern + r"|Table 2|Figure 4")
    assert re.findall(r"\d[\d.,]*", names.sub(" ", text)) == []


def test_the_page_on_open_questions_shows_the_file() -> None:
    path = ROOT / "docs/explanation/open-questions.md"
    page = path.read_text(encoding="utf-8")
    shown = re.findall(r"```\{literalinclude\} (\S+)", page)
    files = [(path.parent / name).resolve() for name in shown]
    assert files == [
        ROOT / f"workflow/reference/{name}.yaml" for name in ("open-questions", "differences")
    ]
    entries = yaml.safe_load(files[0].read_text(encoding="utf-8"))
    ids = [entry["id"] for entry in entries]
    assert ids == [f"O{n}" for n in range(1, len(ids) + 1)]
    (step,) = (entry for entry in entries if "figures" in entry)
    assert step["choice"] == "testing.steps"
    assert f"after {STEP} steps" in step["note"]


def times() -> dict[str, str]:
    """Minutes of meta-training of every kept run, from its manifests or its search.csv."""
    minutes = {
        name: cpu_seconds(name) / 60
        for name in ("ablation", "alternatives", "supplement", "reference")
    }
    for name in ("search", "search-seeds"):
        rows = pd.read_csv(ROOT / "results" / name / "search.csv")
        minutes[name] = (rows["seconds"] * rows["seeds"]).sum() / 60
    return {name: f"{value:.0f}" for name, value in minutes.items()}


def profile_rows(path: str) -> dict[str, str]:
    """The last of the four cells of every profile's row."""
    page = (ROOT / path).read_text(encoding="utf-8")
    head, cell = r"^\| `([\w-]+)`(?: \(default\))? \|", r" ([^|\n]*) \|"
    rows = re.findall(f"{head}{3 * cell}$", page, re.MULTILINE)
    return {name: last for name, *_, last in rows}


def test_the_page_on_profiles_has_the_times_of_the_kept_runs() -> None:
    rows = profile_rows("docs/guide/profiles.md")
    said = {name: text for name, text in rows.items() if re.search(r"\d", text)}
    assert said == times()


def test_the_page_on_profiles_lists_all_of_them() -> None:
    shipped = {path.stem for path in (ROOT / "workflow/config").glob("*.yaml")}
    assert set(profile_rows("docs/guide/profiles.md")) == shipped


def core_hours(name: str) -> float:
    """CPU time of all jobs of a kept run, from Snakemake's benchmark files."""
    seconds = 0.0
    for path in (ROOT / "results" / name / "benchmarks").rglob("*.tsv"):
        with path.open(newline="", encoding="utf-8") as file:
            seconds += sum(float(row["cpu_time"]) for row in csv.DictReader(file, delimiter="\t"))
    return seconds / 3600


def test_the_range_of_times_in_the_readme_holds_the_kept_run() -> None:
    said = profile_rows("README.md")
    low, high = re.fullmatch(r"(\d+)–(\d+) core-hours", said["reference"]).groups()  # type: ignore[union-attr]
    assert float(low) <= core_hours("reference") <= float(high)
    assert said["paper"] == said["reference"]


def texts() -> dict[str, str]:
    """The README's section on results, without the tables that files hold, and the page."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## What came out") : readme.index("**Documentation**")]
    section = "\n".join(line for line in section.splitlines() if not line.startswith("|"))
    return {
        "README.md": section,
        "results.md": (ROOT / "docs/explanation/results.md").read_text(encoding="utf-8"),
    }


@pytest.mark.parametrize("name", ["README.md", "results.md"])
def test_every_number_comes_from_a_file(name: str, facts: list[str]) -> None:
    text = " ".join(re.sub(r"```.*?```", "", texts()[name], flags=re.DOTALL).split())
    for fact in facts:
        text = text.replace(fact, " ")
    left = re.findall(r"\d[\d.,]*", NAMES.sub(" ", text))
    assert left == [], f"say in facts() which file holds these numbers of {name}"


def test_what_is_said_in_results_md_is_said_with_the_numbers_of_the_files(
    facts: list[str],
) -> None:
    said = " ".join(" ".join(texts().values()).split())
    assert [fact for fact in facts if fact not in said] == []


def test_the_readme_shows_a_few_verdicts_of_the_kept_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## What came out") : readme.index("**Documentation**")]
    shown = [line for line in section.splitlines() if line.startswith("|")]
    kept = (REFERENCE / "verdicts.md").read_text(encoding="utf-8").splitlines()
    assert shown[:2] == kept[:2]  # the head
    assert set(shown) <= set(kept)
    assert 3 <= len(shown) <= 10


@pytest.mark.parametrize("said", SETTINGS)
def test_sizes_are_those_of_the_kept_run(said: str) -> None:
    experiment, section, key, value = SETTINGS[said]
    paths = (REFERENCE / "runs" / experiment).glob("*/lft-first/seed*/run.json")
    settings = [json.loads(path.read_text())["settings"] for path in paths]
    if section == "training":
        assert {found[section][key] for found in settings} == {value}
    rows = pd.read_csv(REFERENCE / "summary.csv")
    tasks = rows.loc[(rows["experiment"] == experiment) & (rows["metric"] != "first_full"), "tasks"]
    assert section == "training" or set(tasks) == {value}


def test_stale_sentences_are_gone() -> None:
    """No run of the kept ones diverged."""
    assert "diverged" not in set(pd.read_csv(REFERENCE / "cells.csv")["status"])
    for path in (ROOT / "README.md", *(ROOT / "docs/explanation").glob("*.md")):
        assert not re.search(r"diverged\s+in\s+two", path.read_text(encoding="utf-8")), path
