"""Rows and columns of the tables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from lft.config import Experiment, Order, Profile
from lft.metrics import COSTS, metric_of
from lft.report.claims import Verdict
from lft.report.claims.baselines import WORDS, against_baselines, worth_it
from lft.report.claims.model import STEP
from lft.report.claims.shown import effect_text
from lft.report.statistics import Interval
from lft.report.style import ORDERS, Style
from lft.report.tables.numbers import FAILURES, Numbers
from lft.report.tables.table import Key, Table, TableCell
from lft.results.trained import ROUNDS

CHECKS = ("the end is good", "stable", "longer does not help")
"""Checks of :mod:`lft.results.trained` that have a column, by name."""
TRAINED = (
    "seeds whose meta-training passes each check. Not shown means fewer than "
    f"{ROUNDS} meta-validations, or no longer rerun; not recorded, a run of an older version. "
    "Beside a rule, each method is judged on its own objective (for L2O the support set), as the "
    "claims are"
)
"""Explanation below the table of checks."""


class Builder:
    """Builds the tables of one result folder.

    Args:
        profile: settings.
        results: the profile's result folder.
    """

    def __init__(self, profile: Profile, results: Path) -> None:
        self.profile = profile
        self.results = results
        self.numbers = Numbers(profile, results)
        self.style = Style(profile)

    @cached_property
    def beside(self) -> list[Verdict]:
        """Learned methods judged beside the hand-designed rules."""
        return against_baselines(self.profile, self.results)

    def at_paper_and_last_step(self, name: str, experiment: Experiment) -> Iterator[Table]:
        """Yield tables of an experiment that is not the paper's, after its steps and at the end."""
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
        """Build a table with training mixtures, orders and methods as rows.

        Args:
            id: name of its files.
            caption: start of its caption.
            name: name of the experiment.
            metrics: columns are the test mixtures with each of these.
            step: fine-tuning step; by default that of the paper's tables.
            failures: whether to add columns with the numbers of failed seeds.
        """
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
                    self.numbers.cell(Key(name, trained_on, tested_on, method, order, metric), step)
                    for tested_on, metric in columns
                ]
                + [
                    self.numbers.failures(Key(name, trained_on, "", method, order, failure))
                    for failure in FAILURES
                    if failures
                ]
                for trained_on, order, method in rows
            ],
        )

    def ablations(self, name: str, experiment: Experiment) -> Table:
        """Tabulate each alternative beside the method that it changes: outcome, change, cost."""
        metrics = experiment.judged_by
        rows, cells = [], []
        for key, base in self.numbers.changes(name, experiment):
            several = len(experiment.orders) > 1
            rows.append(experiment.label(key.method) + f", {ORDERS[key.order]}" * several)
            pairs = [(key._replace(metric=m), base._replace(metric=m)) for m in metrics]
            outcomes = [
                cell for k, b in pairs for cell in (self.numbers.cell(k), self.numbers.change(k, b))
            ]
            cells.append([*outcomes, *(self.numbers.cost(key, metric) for metric in COSTS)])
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

    def baselines(self) -> Iterator[Table]:
        """Yield a table per experiment with learned methods beside the hand-designed rules."""
        for name, experiment in self.profile.experiments.items():
            found = {row.claim: row for row in self.beside if row.claim.startswith(f"{name}:")}
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
                [[self._beside(_key(key), rule, found.get(f"{key}:{rule}")) for rule in rules]
                 for key in keys],
            )  # fmt: skip

    def trained(self) -> Iterator[Table]:
        """Yield a table per experiment with the checks of each learned method's meta-training."""
        worth = worth_it(self.profile, self.results, self.beside)
        for name, experiment in self.profile.experiments.items():
            learned = {m for m in (*experiment.methods, *experiment.variants)
                       if experiment.base_method(m).learns != "step_size"}  # fmt: skip
            rules = [rule for rule in experiment.methods if rule not in learned]
            rows = dict.fromkeys(run[1:4] for run in self.profile.runs(name) if run[2] in learned)
            keys = [Key(name, on, on, method, order, "") for on, method, order in rows]
            if keys:
                yield Table(
                    f"table-trained-{name}",
                    f"Are the methods trained? {experiment.title}: {TRAINED}",
                    "trained on → tested on, method",
                    [
                        *CHECKS,
                        FAILURES["untrained"],
                        *(f"beside {experiment.label(rule)}" for rule in rules),
                    ],
                    [self._row_of(experiment, [*key[:5]]) for key in keys],
                    [[*self._checks(key), *self._besides(key, rules, worth)] for key in keys],
                )

    def _checks(self, key: Key) -> Iterator[TableCell]:
        for check in CHECKS:
            yield self.numbers.check(key._replace(metric=check))
        yield self.numbers.failures(key._replace(metric="untrained"))

    def _besides(
        self, key: Key, rules: list[str], found: dict[str, Verdict]
    ) -> Iterator[TableCell]:
        """Yield a method's cells beside each rule; variants are not compared."""
        for rule in rules:
            verdict = found.get(":".join((*key[:5], rule)))
            where = key._replace(metric=f"beside_{rule}")
            yield self._beside(key, rule, verdict) if verdict else TableCell(where, "–", "ok", "")

    def _beside(self, key: Key, rule: str, row: Verdict | None) -> TableCell:
        """Return a learned method's effect beside a rule's, with a word for which is ahead.

        Where either number in the tables is "diverged", there is no effect to show.
        """
        where = key._replace(metric=f"beside_{rule}")
        if row is None or row.verdict is None or row.effect is None:
            return TableCell(where, "missing", "missing", "" if row is None else row.reason)
        experiment = self.profile.experiments[key.experiment]
        status, notes = "ok", [WORDS[row.verdict]]
        for method in (key.method, rule):
            own = self.numbers.cell(key._replace(method=method, metric=experiment.primary))
            if own.status == "diverged":
                status, note = own.status, f"{experiment.label(method)}: {own.note}"
                if own.ours == "diverged":
                    return TableCell(where, own.ours, status, note)
                notes.append(note)
        low, high = (np.nan if end is None else end for end in (row.low, row.high))
        interval = Interval(row.effect, low, high, row.n_seeds, row.interval)
        return TableCell(where, effect_text(row), status, "; ".join(notes), interval)

    def _row_of(self, experiment: Experiment, parts: list[str]) -> str:
        name, trained_on, tested_on, method, order = parts
        several = f", {ORDERS[cast(Order, order)]}" if len(experiment.orders) > 1 else ""
        mixtures = " → ".join(self.style.mixture(name, m) for m in (trained_on, tested_on))
        return f"{mixtures}, {experiment.label(method)}{several}"


def _key(cell: str) -> Key:
    """Return the cell of a comparison's name without its rule."""
    name, trained_on, tested_on, method, order = cell.split(":")
    return Key(name, trained_on, tested_on, method, order, "")
