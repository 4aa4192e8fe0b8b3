"""Tables 1 and 2, numbers of Figure 4, alternatives and baselines: our numbers and the paper's."""

from __future__ import annotations

from pathlib import Path

from lft.config import Profile
from lft.report.claims.agreement import Compared, Mixed, agreement, unexplained
from lft.report.tables.layout import Builder
from lft.report.tables.numbers import Numbers, ablated
from lft.report.tables.table import Key, Table, TableCell
from lft.report.templates import render
from lft.storage.atomic import atomic_folder
from lft.storage.csv import write_frame, write_rows

__all__ = [
    "Key", "Numbers", "Table", "TableCell", "build_tables", "summary_tables",
    "write_tables",
]  # fmt: skip


def build_tables(profile: Profile, results: Path) -> list[Table]:
    """Build all tables that the profile's experiments allow."""
    builder = Builder(profile, results)
    tables = []
    if "attack" in profile.experiments:
        metrics = [metric.name for metric in profile.experiments["attack"].metrics]
        caption = "Table 1. Universal attacks on LeNet-5"
        tables.append(builder.table("table-1", caption, "attack", metrics))
    if "classification" in profile.experiments:
        caption = "Table 2. Few-shot classification accuracy on the query set"
        tables.append(builder.table("table-2", caption, "classification", ["accuracy"]))
    if "sine" in profile.experiments:
        caption = "Numbers of Figure 4. Sine regression, MSE on the query set"
        tables.append(builder.table("table-sine", caption, "sine", ["mse"]))
    for name, experiment in profile.experiments.items():
        if name not in ("attack", "classification", "sine"):
            tables.extend(builder.at_paper_and_last_step(name, experiment))
    for name, experiment in profile.experiments.items():
        if ablated(experiment):
            tables.append(builder.ablations(name, experiment))
    tables.extend(builder.baselines())
    tables.extend(builder.trained())
    return tables


def summary_tables(profile: Profile, results: Path) -> list[Table]:
    """Build the tables for a README: every method's primary metric after the paper's steps."""
    builder = Builder(profile, results)
    return [
        builder.table(
            f"summary-{name}", experiment.title, name, [experiment.primary], failures=False
        )
        for name, experiment in profile.experiments.items()
    ]


def write_tables(profile: Profile, results: Path) -> None:
    """Write each table as CSV (typed numbers), LaTeX and an HTML fragment into ``tables/``.

    agreement.csv and unexplained.csv there compare the paper's printed numbers with ours and with
    each other.
    """
    with atomic_folder(results / "tables") as folder:
        write_rows(folder / "agreement.csv", Compared._fields, agreement(profile, results))
        write_rows(folder / "unexplained.csv", Mixed._fields, unexplained())
        for table in build_tables(profile, results):
            write_frame(folder / f"{table.id}.csv", table.numbers())
            (folder / f"{table.id}.tex").write_text(table.latex(), encoding="utf-8")
            html = render("table.html.j2", table=table)
            (folder / f"{table.id}.html").write_text(html, encoding="utf-8")
