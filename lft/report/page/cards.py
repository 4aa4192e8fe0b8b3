"""A card for every claim: the evidence behind its verdict, and how to repeat it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lft.config import Profile
from lft.errors import UsageError
from lft.metrics import metric_of
from lft.report.claims import CellClaim, TheoryClaim, load_claims, load_paper
from lft.report.claims.model import printed
from lft.report.claims.needed import needed
from lft.report.effects import CellName, Measured
from lft.report.page.charts import Curve, Lane, Strip, curve, even_ticks, ratio_ticks, strip
from lft.report.page.sections import Judged
from lft.report.page.verdicts import claim_row
from lft.report.scales import ARRIVAL, Scale
from lft.report.style import INK, ORDERS, Style, theme
from lft.report.theory_tests import readings
from lft.results.folder import Results

EFFECT_COLUMNS = {"claim": str, "step": float, "effect": float, "low": float, "high": float}
"""Columns of figures/figure-effects-<experiment>.csv that a card needs."""
QUOTED = re.compile(r'"([^"]+)"')
"""A quotation in a claim's place."""


class Rows(NamedTuple):
    """Rows of a table that a claim rests on.

    Attributes:
        file: below the result folder.
        filter: expression for DataFrame.query; empty for all rows.
    """

    file: str
    filter: str


class Card(NamedTuple):
    """Content of one claim's card.

    Attributes:
        shown: the claim as a row of the table of verdicts.
        place: in the paper; ``quotes`` are its sentences.
        paper: the paper's numbers; empty if it prints none.
        about: description of the comparison.
        failed: methods with their failed seeds.
        cost: CPU time of the trainings or measurements behind it.
        command: repeats this claim alone.
    """

    judged: Judged
    shown: dict[str, Any]
    place: str
    quotes: list[str]
    paper: str
    about: str
    strip: Strip | None
    curve: Curve | None
    failed: list[tuple[str, str]]
    cost: str
    rows: list[Rows]
    command: str


class Deck:
    """Makes the cards of one result folder.

    Args:
        profile: settings.
        results: the profile's result folder.
        anchors: ids of the page that a card may link to.
    """

    def __init__(self, profile: Profile, results: Path, anchors: set[str]) -> None:
        self.profile, self.results, self.anchors = profile, results, anchors
        self.folder = Results(profile, results)
        self.style = Style(profile)
        self.scales = load_claims().metrics
        self.paper = load_paper()
        self._effects: dict[str, pd.DataFrame | None] = {}

    @cached_property
    def measured(self) -> Measured:
        """Metrics of all cells."""
        return Measured(self.profile, self.results, sorted(self.scales))

    @cached_property
    def theory(self) -> pd.DataFrame:
        """Rows of theory.csv."""
        return self.folder.theory

    def card(self, judged: Judged) -> Card:
        """Make the card of one claim."""
        row = claim_row(judged, self.anchors)
        quotes = QUOTED.findall(judged.row.place)
        place = QUOTED.sub("", judged.row.place).strip(" ,;")
        command = f"snakemake --cores 2 claim --config claim={shlex.quote(judged.claim.id)}"
        command += f" profile={shlex.quote(self.profile.name)}"
        claim, there = judged.claim, judged.row.status == "judged"
        if isinstance(claim, CellClaim):
            names = self._names(claim)
            about = self._about(claim)
            seeds, effects = (self._seeds(claim), self._curve(claim)) if there else (None, None)
            failed = list(zip(names, row["failures"], strict=True)) if there else []
        else:
            about, failed = "", []
            seeds, effects = (self._theory(claim), None) if there else (None, None)
        return Card(
            judged, row, place, quotes, _printed(judged.row.paper), about, seeds, effects, failed,
            self._cost(judged), list(self._rows(judged.claim)), command,
        )  # fmt: skip

    # ------------------------------------------------------------ words

    def _names(self, claim: CellClaim) -> list[str]:
        """Name the two cells by their differences."""
        names = []
        for cell in (claim.a, claim.b):
            parts = [self.profile.experiment(claim.experiment).label(cell[2])]
            if cell[3] != self._other(claim, cell)[3]:
                parts.append(ORDERS[cell[3]])
            parts += [
                f"{word} {self.style.mixture(claim.experiment, cell[index])}"
                for index, word in ((0, "trained on"), (1, "tested on"))
                if cell[index] != self._other(claim, cell)[index]
            ]
            names.append(", ".join(parts))
        return names

    @staticmethod
    def _other(claim: CellClaim, cell: CellName) -> CellName:
        return claim.b if cell == claim.a else claim.a

    def _about(self, claim: CellClaim) -> str:
        """Describe what both cells share."""
        mixtures = [
            f"{word} {self.style.mixture(claim.experiment, claim.a[index])}"
            for index, word in ((0, "trained on"), (1, "tested on"))
            if claim.a[index] == claim.b[index]
        ]
        metric = metric_of(claim.metric).title
        when = [] if claim.metric == ARRIVAL else [f"after {self._step(claim)} fine-tuning steps"]
        order = [ORDERS[claim.a[3]]] * (claim.a[3] == claim.b[3] != "first")
        return ", ".join([metric[0].upper() + metric[1:], *mixtures, *order, *when])

    def _step(self, claim: CellClaim) -> int:
        return self.measured.last_step(claim.experiment, claim.step)

    # ------------------------------------------------------------ pictures

    def _seeds(self, claim: CellClaim) -> Strip | None:
        """Draw a lane for each cell: its seeds, and the paper's number."""
        metric, experiment = metric_of(claim.metric), self.profile.experiment(claim.experiment)
        lanes = []
        cells = zip((claim.a, claim.b), self._names(claim), self._values(claim), strict=True)
        for cell, name, values in cells:
            color = theme()[experiment.base_method(cell[2]).color]
            row = printed(self.paper, claim, cell)
            number = np.nan if row is None else float(row["value"])
            lanes.append(Lane(name, color, values, number))
        bounds = (0.0, 1.0) if metric.share else (0.0, np.inf)
        last = experiment.testing.steps

        def shown(value: float) -> str:
            late = claim.metric == ARRIVAL and value > last
            return "never" if late else f"{value * metric.factor:.4g}{metric.unit}"

        return strip(lanes, shown, logarithmic=metric.log, bounds=bounds)

    def _values(self, claim: CellClaim) -> tuple[np.ndarray, np.ndarray]:
        """Return the means over test tasks of either cell, each (seeds,)."""
        measured, experiment = self.measured, claim.experiment
        if claim.metric == ARRIVAL:
            return measured.arrivals(experiment, claim.a), measured.arrivals(experiment, claim.b)
        scale = self.scales[claim.metric]
        step = self._step(claim)
        a, b = measured.pair(experiment, claim.a, claim.b, claim.metric, scale, step)
        return a.mean(1), b.mean(1)

    def _theory(self, claim: TheoryClaim) -> Strip | None:
        """Draw a lane for each experiment: how far every seed is on the claim's side."""
        rows = readings(claim.test, self.theory)
        lanes = [
            Lane(row.experiment, theme()[INK], np.array(list(row.effects.values()))) for row in rows
        ]
        if claim.kind == "check":
            return None
        margins = {row.margin for row in rows}
        lines = [0.0, *(sign * margin for margin in margins for sign in (-1, 1))]
        return strip(lanes, _number, lines=lines) if lanes else None

    def _curve(self, claim: CellClaim) -> Curve | None:
        """Draw the effect against the fine-tuning steps, from the figure's numbers."""
        data = self._effects_of(claim.experiment)
        rows = None if data is None else data[data["claim"] == claim.id]
        if rows is None or rows.empty:
            return None
        scale = self.scales[claim.metric]
        leads = [_lead(rows[name].to_numpy(float), scale) for name in ("effect", "low", "high")]
        low, high = np.fmin(leads[1], leads[2]), np.fmax(leads[1], leads[2])

        def shown(lead: float) -> str:
            raw = scale.raw(lead)
            number = f"{100 * raw:+.3g}" if scale.scale == "points" and raw else f"{raw:.3g}"
            return ("×" * (scale.scale == "ratio") + number).replace("-", "−")

        return curve(
            rows["step"].to_numpy(float), leads[0], low, high, scale.margin, self._step(claim),
            shown, even_ticks if scale.scale == "points" else ratio_ticks,
        )  # fmt: skip

    def _effects_of(self, experiment: str) -> pd.DataFrame | None:
        if experiment not in self._effects:
            path = self.results / "figures" / f"figure-effects-{experiment}.csv"
            self._effects[experiment] = _effects(path) if path.is_file() else None
        return self._effects[experiment]

    # ------------------------------------------------------------ what it rests on

    def _cost(self, judged: Judged) -> str:
        """Return the CPU time of the meta-trainings, or the time of the theory's measurements."""
        if judged.row.status not in ("judged", "not measured"):
            return "–"
        runs = needed(self.profile, judged.claim.id).runs
        minutes = f"{judged.row.seconds / 60:.1f} min"
        if not runs:
            return f"{minutes} of measuring the theory"
        found = [manifest for run in runs if (manifest := self.folder.manifest(run))]
        known = [m.cpu_seconds for m in found if m.cpu_seconds is not None]
        if not found:
            return "–"
        count = f"{len(found)} meta-training{'s' * (len(found) != 1)}"
        if len(known) < len(found):
            return f"{minutes} in {count}, CPU time not recorded"
        return f"{sum(known) / 60:.1f} CPU-minutes in {count}"

    def _rows(self, claim: CellClaim | TheoryClaim) -> Iterator[Rows]:
        """Yield files, with the rows that the claim is about."""
        if isinstance(claim, TheoryClaim):
            yield Rows("theory.csv", "")
            return
        for file in ("measurements.csv", "summary.csv"):
            yield Rows(file, row_filter(claim, self._steps(claim)))

    def _steps(self, claim: CellClaim) -> str:
        """Return the condition on the steps that the claim looks at."""
        if claim.metric == ARRIVAL:
            return ""
        last = self._step(claim)
        return f"step <= {last}" if claim.kind == "wider" else f"step == {last}"


def row_filter(claim: CellClaim, steps: str) -> str:
    """Return the rows of a claim as an expression for pandas' DataFrame.query.

    Args:
        claim: the claim.
        steps: condition on the steps; empty for all.
    """
    names = ("trained_on", "tested_on", "method", "order")
    metric = "asr" if claim.metric == ARRIVAL else claim.metric
    same = {name: a for name, a, b in zip(names, claim.a, claim.b, strict=True) if a == b}
    parts = [_equal("experiment", claim.experiment), _equal("metric", metric)]
    parts += [_equal(name, value) for name, value in same.items()] + [steps] * bool(steps)
    other = [(n, a, b) for n, a, b in zip(names, claim.a, claim.b, strict=True) if n not in same]
    if len(other) == 1:
        name, a, b = other[0]
        return " and ".join([*parts, f"{name} in ('{a}', '{b}')"])
    cells = (" and ".join(_equal(cell[0], cell[side]) for cell in other) for side in (1, 2))
    return " and ".join([*parts, f"({' or '.join(f'({cell})' for cell in cells)})"])


def _effects(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, usecols=list(EFFECT_COLUMNS), dtype=EFFECT_COLUMNS)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read {path}: {error}; delete the folder and run lft figures again"
        ) from None


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _printed(paper: str) -> str:
    """Return the paper's two numbers; empty if there are none."""
    return paper if re.search(r"\d", paper) else ""


def _equal(column: str, value: str) -> str:
    return f"{column} == '{value}'"


def _lead(effects: np.ndarray, scale: Scale) -> np.ndarray:
    """Convert shown effects back to the tested scale."""
    if scale.scale == "points":
        return np.asarray(scale.sign * effects)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(scale.sign * np.log(effects))
