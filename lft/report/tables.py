"""Tables 1 and 2, the numbers of Figure 4, and the ablations: ours and the paper's in one cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lft.config import Profile
from lft.records import (
    CELL_COLUMNS,
    SUMMARY_COLUMNS,
    atomic_folder,
    read_json,
    read_rows,
)
from lft.report.claims import load_paper
from lft.report.statistics import Interval, mean_interval
from lft.report.style import ORDERS, Style

STEP = 100
"""The paper's tables are taken after this many fine-tuning steps."""


class Metric(NamedTuple):
    """A metric as a table shows it: header, factor, decimals and unit of the printed number."""

    header: str
    factor: float = 1.0
    decimals: int = 2
    unit: str = ""


METRICS = {
    "asr": Metric("ASR", 100, 0, " %"),
    "distortion": Metric("mean |δ|", 1, 3),
    "first_full": Metric("first step with ASR 100 %", 1, 0),
    "accuracy": Metric("accuracy", 100, 1, " %"),
    "mse": Metric("MSE", 1, 2),
    "seconds": Metric("seconds of meta-training", 1, 1, " s"),
}


@dataclass(frozen=True)
class TableCell:
    """One cell: our mean and interval over seeds, the paper's printed value, and what is missing.

    Attributes:
        status: ok, diverged, missing or not applicable, of the worst seed.
        note: n of N seeds, diverged seeds, reasons.
    """

    ours: str
    paper: str
    status: str
    note: str
    interval: Interval


@dataclass(frozen=True)
class Table:
    """A table: rows and columns with headers, cells by position."""

    id: str
    caption: str
    corner: str
    columns: list[str]
    rows: list[str]
    cells: list[list[TableCell]]

    def frame(self) -> pd.DataFrame:
        """Cells as text, ours first and the paper's in brackets."""
        texts = [[_text(cell) for cell in row] for row in self.cells]
        return pd.DataFrame(
            texts, index=pd.Index(self.rows, name=self.corner), columns=self.columns
        )

    def numbers(self) -> pd.DataFrame:
        """One row per cell, numbers typed."""
        return pd.DataFrame(
            {
                "row": row,
                "column": column,
                "mean": cell.interval.mean,
                "low": cell.interval.low,
                "high": cell.interval.high,
                "interval": cell.interval.kind,
                "n_seeds": cell.interval.n,
                "paper": cell.paper,
                "status": cell.status,
                "note": cell.note,
            }
            for row, cells in zip(self.rows, self.cells, strict=True)
            for column, cell in zip(self.columns, cells, strict=True)
        )


def build_tables(profile: Profile, results: Path) -> list[Table]:
    """All tables that the profile's experiments allow."""
    summary = read_rows(results / "summary.csv", SUMMARY_COLUMNS)
    cells = read_rows(results / "cells.csv", CELL_COLUMNS)
    builder = _Builder(profile, summary, cells)
    tables = []
    if "attack" in profile.experiments:
        metrics = ["asr", "distortion", "first_full"]
        caption = "Table 1. Universal attacks on LeNet-5"
        tables.append(builder.table("table-1", caption, "attack", metrics))
    if "classification" in profile.experiments:
        caption = "Table 2. Few-shot classification accuracy on the query set"
        tables.append(builder.table("table-2", caption, "classification", ["accuracy"]))
    if "sine" in profile.experiments:
        caption = "Numbers of Figure 4. Sine regression, MSE on the query set"
        tables.append(builder.table("table-sine", caption, "sine", ["mse"]))
    if any(experiment.variants for experiment in profile.experiments.values()):
        tables.append(_ablations(profile, results, builder))
    return tables


def write_tables(profile: Profile, results: Path) -> None:
    """Write each table as CSV (typed numbers), LaTeX and HTML into ``tables/``."""
    with atomic_folder(results / "tables") as folder:
        for table in build_tables(profile, results):
            table.numbers().to_csv(folder / f"{table.id}.csv", index=False, lineterminator="\n")
            styled = table.frame().style.format(escape="latex")
            styled = styled.format_index(escape="latex", axis=0)
            styled = styled.format_index(escape="latex", axis=1)
            latex = styled.to_latex(hrules=True, caption=_latex(table.caption), label=table.id)
            (folder / f"{table.id}.tex").write_text(latex, encoding="utf-8")
            html = table.frame().to_html(escape=True, border=0)
            (folder / f"{table.id}.html").write_text(html, encoding="utf-8")


class _Builder:
    def __init__(self, profile: Profile, summary: pd.DataFrame, cells: pd.DataFrame) -> None:
        self.profile = profile
        self.style = Style(profile)
        self.paper = load_paper()
        keys = ["experiment", "trained_on", "tested_on", "method", "order"]
        self.summary = dict(list(summary.groupby([*keys, "metric"], observed=True)))
        self.cells = dict(list(cells.groupby(keys, observed=True)))

    def table(self, id: str, caption: str, name: str, metrics: list[str]) -> Table:
        """Rows are training mixtures, orders and methods; columns test mixtures and metrics."""
        experiment = self.profile.experiments[name]
        steps = experiment.testing.steps
        rows = [
            (trained_on, order, method)
            for trained_on in experiment.train_on
            for order in experiment.orders
            for method in (*experiment.methods, *experiment.variants)
        ]
        columns = [(tested_on, metric) for tested_on in experiment.test_on for metric in metrics]
        several = len(experiment.orders) > 1
        n_tasks = experiment.testing.tasks
        return Table(
            id,
            f"{caption}, after {min(STEP, steps)} fine-tuning steps (of {steps}), "
            f"means over {n_tasks} test tasks ± half a 95 % t interval over seeds",
            "trained on, method",
            [
                f"{self.style.mixture(name, tested_on)}: {METRICS[metric].header}"
                for tested_on, metric in columns
            ],
            [
                f"{self.style.mixture(name, trained_on)}, {experiment.label(method)}"
                + (f", {ORDERS[order]}" if several else "")
                for trained_on, order, method in rows
            ],
            [
                [
                    self.cell(name, trained_on, tested_on, method, order, metric)
                    for tested_on, metric in columns
                ]
                for trained_on, order, method in rows
            ],
        )

    def cell(
        self, name: str, trained_on: str, tested_on: str, method: str, order: str, metric: str
    ) -> TableCell:
        key = (name, trained_on, tested_on, method, order)
        printed = "–"
        if order == "first":
            found = self.paper.get((trained_on, tested_on, method, metric), {})
            printed = found.get("printed", "–") + ("†" if found.get("note") else "")
        planned = self.cells[key]
        status = planned["status"].astype(str)
        rows = self.summary.get((*key, metric))
        none = Interval(np.nan, np.nan, np.nan, 0, "none")
        if (status == "not applicable").all():
            return TableCell(
                "not applicable", printed, "not applicable", planned["reason"].iloc[0], none
            )
        diverged = int((status == "diverged").sum())
        if rows is None:
            word = "diverged" if diverged else "missing"
            return TableCell(
                word,
                printed,
                word,
                f"{diverged} of {len(status)} seeds diverged" if diverged else "not measured",
                none,
            )
        last = rows["step"].max() if metric == "first_full" else min(STEP, rows["step"].max())
        rows = rows[rows["step"] == last]
        interval = mean_interval(rows["mean"].dropna() if metric == "first_full" else rows["mean"])
        note = _note(len(rows), len(status), diverged)
        if metric == "first_full":
            tasks = self.profile.experiments[name].testing.tasks * len(rows)
            note += f", reached in {rows['tasks'].sum() / tasks:.0%} of tasks"
            if rows["tasks"].sum() == 0:
                return TableCell("never", printed, "ok", note, none)
        if not np.isfinite(interval.mean):
            return TableCell("diverged", printed, "diverged", f"{note}, tasks diverged", interval)
        worst = "ok" if len(rows) == len(status) else "diverged" if diverged else "missing"
        return TableCell(_number(interval, METRICS[metric]), printed, worst, note, interval)


def _ablations(profile: Profile, results: Path, builder: _Builder) -> Table:
    """Every variant beside the method that it changes: outcome and cost."""
    rows, cells = [], []
    for name, experiment in profile.experiments.items():
        metric = {"attack": "asr", "classification": "accuracy"}.get(name, "mse")
        bases = {variant.method for variant in experiment.variants.values()}
        shown = [m for m in experiment.methods if m in bases] + list(experiment.variants)
        mixture = experiment.train_on[0]
        for method in shown if experiment.variants else []:
            for order in experiment.orders:
                rows.append(f"{name}, {experiment.label(method)}, {ORDERS[order]}")
                outcome = builder.cell(name, mixture, experiment.test_on[0], method, order, metric)
                seconds = _seconds(profile, results, name, mixture, method, order)
                cells.append([outcome, seconds])
    columns = ["outcome (primary metric on the first test mixture)", METRICS["seconds"].header]
    caption = "Ablations: variants beside the method that they change"
    return Table("table-ablations", caption, "experiment, variant", columns, rows, cells)


def _seconds(
    profile: Profile, results: Path, name: str, mixture: str, method: str, order: str
) -> TableCell:
    paths = [
        results / run.folder / "run.json"
        for run in profile.runs(name)
        if (run.trained_on, run.method, run.order) == (mixture, method, order)
    ]
    values = [float(read_json(path)["seconds"]) for path in paths if path.is_file()]
    interval = mean_interval(values)
    note = _note(len(values), len(paths), 0)
    if not values:
        return TableCell("missing", "–", "missing", note, interval)
    return TableCell(_number(interval, METRICS["seconds"]), "–", "ok", note, interval)


def _number(interval: Interval, metric: Metric) -> str:
    value = f"{interval.mean * metric.factor:.{metric.decimals}f}"
    if np.isfinite(interval.half_width):
        value += f" ± {interval.half_width * metric.factor:.{metric.decimals}f}"
    return value + metric.unit


def _note(n: int, planned: int, diverged: int) -> str:
    note = f"n = {n}" if n == planned else f"n = {n}/{planned}"
    return f"{note}, {diverged} diverged" if diverged else note


def _text(cell: TableCell) -> str:
    ours = cell.ours if cell.status == "not applicable" else f"{cell.ours} ({cell.note})"
    return ours if cell.paper == "–" else f"{ours} [paper: {cell.paper}]"


def _latex(text: str) -> str:
    return text.replace("%", r"\%").replace("&", r"\&").replace("_", r"\_")
