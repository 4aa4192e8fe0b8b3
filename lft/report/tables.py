"""Tables 1 and 2, the numbers of Figure 4, and the ablations: ours and the paper's in one cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from lft.config import Experiment, Order, Profile
from lft.methods import Method
from lft.metrics import COSTS, Metric, metric_of
from lft.report.claims import Verdict, load_claims, load_paper
from lft.report.claims.agreement import Compared, Mixed, agreement, unexplained
from lft.report.claims.baselines import WORDS, against_baselines
from lft.report.claims.shown import effect_text
from lft.report.effects import ARRIVAL, FULL, was_trained
from lft.report.statistics import NOTHING, Interval, mean_interval
from lft.report.style import ORDERS, Style
from lft.report.templates import render
from lft.results.folder import Results
from lft.results.manifest import RunManifest
from lft.results.schema import CELL_COLUMNS, SUMMARY_COLUMNS
from lft.storage.atomic import atomic_folder
from lft.storage.csv import read_rows, write_frame, write_rows
from lft.storage.json import read_json

STEP = 100
"""The paper's tables are taken after this many fine-tuning steps."""


FAILURES = {"diverged": "seeds diverged", "untrained": "seeds untrained"}
"""Columns of the tables, and their headings."""


class Key(NamedTuple):
    """What a number is of: the columns of measurements.csv that it is computed from."""

    experiment: str
    trained_on: str
    tested_on: str
    method: str
    order: str
    metric: str


@dataclass(frozen=True)
class TableCell:
    """One cell: our mean and interval over seeds, the paper's printed value, and what is missing.

    Attributes:
        ours: our number as text, or the word of the status.
        paper: the paper's number as printed, with † where paper.csv has a note on it; – if none.
        paper_value: the same as a number; NaN if none.
        status: ok, diverged, missing or not applicable, of the worst seed.
        note: n of N seeds, diverged seeds, reasons.
        step: fine-tuning steps made.
    """

    key: Key
    ours: str
    status: str
    note: str
    interval: Interval = NOTHING
    paper: str = "–"
    paper_value: float = np.nan
    step: int = 0


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
        """One row per cell, numbers typed, in the units of measurements.csv."""
        return pd.DataFrame(
            {
                **cell.key._asdict(),
                "step": cell.step,
                "mean": cell.interval.mean,
                "low": cell.interval.low,
                "high": cell.interval.high,
                "interval": cell.interval.kind,
                "n_seeds": cell.interval.n,
                "paper": cell.paper_value,
                "paper_printed": cell.paper,
                "status": cell.status,
                "note": cell.note,
            }
            for row in self.cells
            for cell in row
        )

    def latex(self) -> str:
        """A tabular for booktabs. Labels are escaped; the signs used here become commands."""
        styled = self.frame().style.format(escape="latex")
        for axis in (0, 1):
            styled = styled.format_index(escape="latex", axis=axis)
        caption = self.caption.replace("%", r"\%")
        latex = styled.to_latex(hrules=True, caption=caption, label=self.id)
        return latex.replace("|δ|", r"$|\delta|$").translate(_LATEX)


_LATEX = str.maketrans(
    {"±": r"$\pm$", "†": r"\dag{}", "–": "--", "→": r"$\to$", "×": r"$\times$", "−": "$-$"}
)


def build_tables(profile: Profile, results: Path) -> list[Table]:
    """All tables that the profile's experiments allow."""
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
    return tables


def summary_tables(profile: Profile, results: Path) -> list[Table]:
    """For a README: every method's primary metric, after as many steps as the paper's tables."""
    builder = Builder(profile, results)
    return [
        builder.table(
            f"summary-{name}", experiment.title, name, [experiment.primary], failures=False
        )
        for name, experiment in profile.experiments.items()
    ]


def write_tables(profile: Profile, results: Path) -> None:
    """Write each table as CSV (typed numbers), LaTeX and an HTML fragment into ``tables/``, and as
    CSV how the paper's printed numbers agree with ours and with each other."""
    with atomic_folder(results / "tables") as folder:
        write_rows(folder / "agreement.csv", Compared._fields, agreement(profile, results))
        write_rows(folder / "unexplained.csv", Mixed._fields, unexplained())
        for table in build_tables(profile, results):
            write_frame(folder / f"{table.id}.csv", table.numbers())
            (folder / f"{table.id}.tex").write_text(table.latex(), encoding="utf-8")
            html = render("table.html.j2", table=table)
            (folder / f"{table.id}.html").write_text(html, encoding="utf-8")


class Builder:
    """Tables of one result folder, and the numbers that they hold."""

    def __init__(self, profile: Profile, results: Path) -> None:
        self.profile = profile
        self.results = results
        self.folder = Results(profile, results)
        self.style = Style(profile)
        self.paper = load_paper()
        keys = list(Key._fields)
        summary = read_rows(results / "summary.csv", SUMMARY_COLUMNS)
        cells = read_rows(results / "cells.csv", CELL_COLUMNS)
        self.summary = dict(list(summary.groupby(keys, observed=True)))
        self.planned = dict(list(cells.groupby(keys[:-1], observed=True)))

    def at_paper_and_last_step(self, name: str, experiment: Experiment) -> Iterator[Table]:
        """The metrics of an experiment that is not the paper's, after as many steps as the paper's
        tables and after all."""
        testing, metrics = experiment.testing, list(experiment.judged_by)
        for step in dict.fromkeys((testing.written(STEP), testing.steps)):
            id = f"table-{name}" if step <= STEP else f"table-{name}-{step}"
            yield self.table(id, experiment.title, name, metrics, step)

    def table(
        self,
        id: str,
        caption: str,
        name: str,
        metrics: list[str],
        step: int | None = None,
        *,
        failures: bool = True,
    ) -> Table:
        """Rows are training mixtures, orders and methods; columns test mixtures and metrics, and
        how many seeds failed."""
        experiment = self.profile.experiments[name]
        testing = experiment.testing
        step = testing.written(STEP) if step is None else step
        rows = [
            (trained_on, order, method)
            for trained_on in experiment.train_on
            for order in experiment.orders
            for method in (*experiment.methods, *experiment.variants)
        ]
        columns = [(tested_on, metric) for tested_on in experiment.test_on for metric in metrics]
        several = len(experiment.orders) > 1
        return Table(
            id,
            f"{caption}, after {step} fine-tuning steps (of {testing.steps}), "
            f"means over {testing.tasks} test tasks ± half a 95 % t interval over seeds",
            "trained on, method",
            [
                f"{self.style.mixture(name, tested_on)}: {metric_of(metric).label}"
                for tested_on, metric in columns
            ]
            + [*FAILURES.values()] * failures,
            [
                f"{self.style.mixture(name, trained_on)}, {experiment.label(method)}"
                + (f", {ORDERS[order]}" if several else "")
                for trained_on, order, method in rows
            ],
            [
                [
                    self.cell(Key(name, trained_on, tested_on, method, order, metric), step)
                    for tested_on, metric in columns
                ]
                + [
                    self.failures(Key(name, trained_on, "", method, order, failure))
                    for failure in FAILURES
                    if failures
                ]
                for trained_on, order, method in rows
            ],
        )

    def ablations(self, name: str, experiment: Experiment) -> Table:
        """Every variant beside the method that it changes: outcome, change and cost."""
        metrics = experiment.judged_by
        rows, cells = [], []
        for key, base in self.changes(name, experiment):
            several = len(experiment.orders) > 1
            rows.append(experiment.label(key.method) + f", {ORDERS[key.order]}" * several)
            pairs = [(key._replace(metric=m), base._replace(metric=m)) for m in metrics]
            outcomes = [cell for k, b in pairs for cell in (self.cell(k), self.change(k, b))]
            cells.append([*outcomes, *(self.cost(key, metric) for metric in COSTS)])
        headers = [metric_of(m).label for m in metrics]
        columns = [text for header in headers for text in (header, f"change in {header}")]
        columns += [cost.label for cost in COSTS]
        first = [self.style.mixture(name, m[0]) for m in (experiment.train_on, experiment.test_on)]
        caption = (
            f"Ablations of {name}, trained on {first[0]}, tested on {first[1]}, after "
            f"{experiment.testing.written(STEP)} fine-tuning steps. Changes are against the row of "
            "the method above, paired by seed; ± is half a 95 % t interval over seeds"
        )
        return Table(f"table-ablations-{name}", caption, "method or variant", columns, rows, cells)

    def changes(self, name: str, experiment: Experiment) -> Iterator[tuple[Key, Key]]:
        """What a variant and the method that it changes came to, in the first mixtures."""
        where = Key(name, experiment.train_on[0], experiment.test_on[0], "", "", "")
        for method, base in ablated(experiment).items():
            for order in experiment.orders:
                key = where._replace(method=method, order=order)
                yield key, key._replace(method=base)

    def cell(self, key: Key, at: int | None = None) -> TableCell:
        """One number of ours over seeds, beside the paper's; after the paper's steps or ``at``."""
        printed, value = self._printed(key)
        planned = self.planned[key[:-1]]
        status = planned["status"].astype(str)
        rows = self.summary.get(key)
        if (status == "not applicable").all():
            reason = str(planned["reason"].iloc[0])
            return TableCell(key, status.iloc[0], status.iloc[0], reason, NOTHING, printed, value)
        diverged = int((status == "diverged").sum())
        if rows is None:
            word = "diverged" if diverged else "missing"
            note = _note(0, len(status), diverged)
            return TableCell(key, word, word, note, NOTHING, printed, value)
        testing = self.profile.experiments[key.experiment].testing
        if key.metric == ARRIVAL:
            ours, note, interval = self._arrival(
                key, rows, note=_note(len(rows), len(status), diverged)
            )
            worst = "ok" if len(rows) == len(status) else "diverged" if diverged else "missing"
            return TableCell(key, ours, worst, note, interval, printed, value, testing.steps)
        step = testing.written(STEP) if at is None else at
        rows = rows[rows["step"] == step]
        worst = "ok" if len(rows) == len(status) else "diverged" if diverged else "missing"
        note = _note(len(rows), len(status), diverged)
        interval = mean_interval(rows["mean"], bounds=_bounds(key.metric))
        if np.isfinite(interval.mean):
            ours = _number(interval, metric_of(key.metric))
        else:
            ours = worst = "diverged"
            note += ", test tasks diverged"
        return TableCell(key, ours, worst, note, interval, printed, value, step)

    def _arrival(self, key: Key, rows: pd.DataFrame, note: str) -> tuple[str, str, Interval]:
        """First step at which a seed's mean ASR is 100 %, over seeds that have one; the note has
        the share of tasks that ever get there and the restricted mean of their first step."""
        testing = self.profile.experiments[key.experiment].testing
        curves = self.summary[key._replace(metric="asr")]
        full = curves[curves["mean"] >= FULL].groupby("seed", observed=True)["step"].min()
        count = self._tasks(key) * len(rows)
        arrived = float((rows["mean"].fillna(0) * rows["tasks"]).sum())
        late = (count - rows["tasks"].sum()) * testing.steps
        note += f", {rows['tasks'].sum() / count:.0%} of tasks get there"
        note += f", restricted mean {(arrived + late) / count:.0f} steps"
        if full.empty:
            return "never", note, NOTHING
        interval = mean_interval(full)
        if len(full) < len(rows):
            note = f"{len(full)} of {len(rows)} seeds, {note}"
        return _number(interval, metric_of(key.metric)), note, interval

    def _tasks(self, key: Key) -> int:
        """Test tasks of a mixture, an equal share of each of its families."""
        names = key.tested_on.split("+")
        return self.profile.experiments[key.experiment].testing.tasks // len(names) * len(names)

    def failures(self, key: Key) -> TableCell:
        """How many meta-trainings of a row diverged, or did not pass the test for trained."""
        found = [
            self.folder.manifest(run)
            for run in self.profile.runs(key.experiment, applicable_only=False)
            if (run.trained_on, run.method, run.order) == (key.trained_on, key.method, key.order)
        ]
        made = [manifest for manifest in found if manifest]
        words = [
            manifest.status == "diverged" if key.metric == "diverged" else _untrained(manifest)
            for manifest in made
        ]
        known = [word for word in words if word is not None]
        if not known:
            return TableCell(key, "–", "ok", "not known" if made else "")
        count = f"{sum(known)} of {len(known)}"
        return TableCell(key, count, "ok", "", Interval(sum(known), np.nan, np.nan, len(known), ""))

    def baselines(self) -> Iterator[Table]:
        """Every learned method beside the hand-designed rules, a table per experiment."""
        verdicts = against_baselines(self.profile, self.results)
        for name, experiment in self.profile.experiments.items():
            found = {row.claim: row for row in verdicts if row.claim.startswith(f"{name}:")}
            if not found:
                continue
            keys = list(dict.fromkeys(claim.rpartition(":")[0] for claim in found))
            rules = list(dict.fromkeys(claim.rpartition(":")[2] for claim in found))
            metric = metric_of(experiment.primary).label
            caption = (
                f"Learned methods beside hand-designed rules, {experiment.title}: effect on "
                f"{metric} after {experiment.testing.written(STEP)} steps with its 95 % t interval "
                "over seeds, judged as the claims are, Holm-adjusted among themselves"
            )
            yield Table(
                f"table-baselines-{name}", caption, "trained on → tested on, method",
                [f"beside {experiment.label(rule)}" for rule in rules],
                [self._row_of(experiment, key.split(":")) for key in keys],
                [[_beside(key, rule, found.get(f"{key}:{rule}")) for rule in rules]
                 for key in keys],
            )  # fmt: skip

    def _row_of(self, experiment: Experiment, parts: list[str]) -> str:
        name, trained_on, tested_on, method, order = parts
        several = f", {ORDERS[cast(Order, order)]}" if len(experiment.orders) > 1 else ""
        mixtures = " → ".join(self.style.mixture(name, m) for m in (trained_on, tested_on))
        return f"{mixtures}, {experiment.label(method)}{several}"

    def change(self, key: Key, base: Key) -> TableCell:
        """A number minus that of the method it changes, paired by seed."""
        metric, named = metric_of(key.metric), key._replace(metric=f"{key.metric}_change")
        if key == base:
            return TableCell(named, "–", "ok", "")
        step = self.cell(key).step
        means = [
            rows[rows["step"] == step].set_index("seed")["mean"]
            for rows in (self.summary.get(key), self.summary.get(base))
            if rows is not None
        ]
        difference = (means[0] - means[1]).dropna() if len(means) == 2 else pd.Series(dtype=float)
        note = _note(len(difference), len(self.planned[key[:-1]]), 0)
        interval = mean_interval(difference)
        if not np.isfinite(interval.mean):
            word = "missing" if difference.empty else "diverged"
            return TableCell(named, word, word, note)
        sign = "+" if interval.mean > 0 else ""
        return TableCell(named, sign + _number(interval, metric), "ok", note, interval, step=step)

    def cost(self, key: Key, quantity: Metric) -> TableCell:
        """What the meta-trainings behind a cell took, from their manifests."""
        wanted = (key.trained_on, key.method, key.order)
        runs = self.profile.runs(key.experiment)
        paths = [
            self.results / run.folder / "run.json"
            for run in runs
            if (run.trained_on, run.method, run.order) == wanted
        ]
        found = (read_json(path).get(quantity.name) for path in paths if path.is_file())
        values = [float(value) for value in found if isinstance(value, int | float)]
        interval, key = mean_interval(values), key._replace(metric=quantity.name)
        note = _note(len(values), len(paths), 0)
        if not values:
            return TableCell(key, "missing", "missing", note)
        return TableCell(key, _number(interval, quantity), "ok", note, interval)

    def _printed(self, key: Key) -> tuple[str, float]:
        """The paper's number, as printed and as a number. The paper's tables are first-order."""
        where = (key.trained_on, key.tested_on, key.method, key.metric)
        if key.order != "first" or where not in self.paper:
            return "–", np.nan
        row = self.paper[where]
        return row["printed"] + ("†" if row["note"] else ""), float(row["value"])


def ablated(experiment: Experiment) -> dict[str, str]:
    """Methods that differ in the meta-gradient or in learning the initialisation, too, and
    variants, with the method that each changes: the first of its kind, which comes before them
    with itself."""
    bases: dict[str, str] = {}
    for name in experiment.methods:
        method = experiment.base_method(name)
        bases[name] = next(
            base for base in experiment.methods if _changes(method, experiment.base_method(base))
        )
    bases |= {name: variant.method for name, variant in experiment.variants.items()}
    changed = {base for name, base in bases.items() if name != base}
    kinds = [base for base in dict.fromkeys(bases.values()) if base in changed]
    return {name: base for base in kinds for name in bases if bases[name] == base}


def _changes(method: Method, base: Method) -> bool:
    learned = method.learns == "both" and base.learns == "finetuner"
    alike = (method.tuner, method.outer) == (base.tuner, base.outer)
    return method.differs_only_in_meta_gradient(base) or (learned and alike)


def _untrained(manifest: RunManifest) -> bool | None:
    trained = was_trained(manifest)
    return None if trained is None else not trained


def _beside(key: str, rule: str, row: Verdict | None) -> TableCell:
    """A learned method's effect beside a rule's, and in words which is ahead."""
    name, trained_on, tested_on, method, order = key.split(":")
    where = Key(name, trained_on, tested_on, method, order, f"beside_{rule}")
    if row is None or row.verdict is None or row.effect is None:
        return TableCell(where, "missing", "missing", "" if row is None else row.reason)
    low, high = (np.nan if end is None else end for end in (row.low, row.high))
    interval = Interval(row.effect, low, high, row.n_seeds, row.interval)
    return TableCell(where, effect_text(row), "ok", WORDS[row.verdict], interval)


def _bounds(metric: str) -> tuple[float, float]:
    """What a mean can be."""
    known = load_claims().metrics.get(metric)
    return (0.0, 1.0) if known and known.scale == "points" else (-np.inf, np.inf)


def _number(interval: Interval, metric: Metric) -> str:
    value = f"{interval.mean * metric.factor:.{metric.decimals}f}"
    if interval.cut:
        low, high = (f"{end * metric.factor:.{metric.decimals}f}" for end in interval[1:3])
        return f"{value} [{low}, {high}]{metric.unit}"
    if np.isfinite(interval.half_width):
        value += f" ± {interval.half_width * metric.factor:.{metric.decimals}f}"
    return value + metric.unit


def _note(n: int, planned: int, diverged: int) -> str:
    note = f"n = {n}" if n == planned else f"n = {n}/{planned}"
    return f"{note}, {diverged} diverged" if diverged else note


def _text(cell: TableCell) -> str:
    explained = cell.note and cell.status != "not applicable"
    ours = f"{cell.ours} ({cell.note})" if explained else cell.ours
    return ours if cell.paper == "–" else f"{ours} [paper: {cell.paper}]"
