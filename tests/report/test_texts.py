"""Every number in the README's results and in docs/explanation/results.md, and its file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lft.report.claims import read_verdicts
from lft.report.statistics import detectable

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
        f"attacks unseen CIFAR-10 in {asr('adam', 'mnist', 'cifar10')} % of",
        f"MNIST and in {asr('adam', 'mnist+cifar10', 'cifar10')} % from the one for both sources, "
        f"LFT in {asr('lft', 'mnist', 'cifar10')} and {asr('lft', 'mnist+cifar10', 'cifar10')} %",
        f"SGD has {accuracy('sgd')} %, Adam {accuracy('adam')} %, LFT {accuracy('lft')} % and L2O "
        f"{accuracy('l2o')} %",
        f"(CIFAR-10, CNN): {accuracy('maml')} %, where the paper has 66 %",
        "comes to the paper's 66 %",
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


def texts() -> dict[str, str]:
    """The README's section on results, without the tables that files hold, and the page."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## What came out") : readme.index("**Documentation**")]
    for name in ("verdicts.md", "numbers.md"):
        section = section.replace((REFERENCE / name).read_text(encoding="utf-8").strip(), "")
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


def test_the_readme_shows_the_tables_of_the_kept_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("verdicts.md", "numbers.md"):
        assert (REFERENCE / name).read_text(encoding="utf-8").strip() in readme


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
