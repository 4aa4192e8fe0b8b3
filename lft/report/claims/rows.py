"""Format a judged claim as a row of claims.json."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lft.config import Run
from lft.report.claims.decision import Evidence, Ruling
from lft.report.claims.evidence import AnyClaim, Court
from lft.report.claims.model import CellClaim, TheoryClaim, printed
from lft.report.claims.verdict import Status, Verdict, Word
from lft.report.scales import ARRIVAL, Scale
from lft.report.statistics import (
    detectable,
    hedges_g,
    hierarchical_bootstrap,
    improvement,
    mean_interval,
    seeds_needed,
    skewness_p,
    upper_sd,
)
from lft.seeding import seed_from
from lft.storage.json import read_json

LARGEST_LOG = 20.0
"""Cap on the logarithm of a reported ratio, against overflow."""


@dataclass(frozen=True)
class Rows:
    """Formats what a court found.

    Attributes:
        court: the evidence.
        paper: the printed numbers.
        diagnostics: whether to compute bootstrap intervals.
    """

    court: Court
    paper: dict[tuple[str, ...], dict[str, str]]
    diagnostics: bool

    def verdict(
        self,
        claim: AnyClaim,
        status: tuple[Status, str],
        evidence: Evidence | None,
        ruling: Ruling | None,
        without: Word | None,
        alpha: float,
    ) -> Verdict:
        """Return the row of a claim.

        Args:
            claim: the claim.
            status: whether it can be judged, and if not, why.
            evidence: None if there is nothing to judge.
            ruling: its verdict.
            without: its verdict if seeds in which a run failed are left out.
            alpha: level of Holm's first step.
        """
        values: dict[str, Any] = {
            "claim": claim.id, "text": claim.claim, "place": claim.place,
            "hypothesis": claim.hypothesis, "figure": claim.figure, "kind": claim.kind,
            "metric": claim.test if isinstance(claim, TheoryClaim) else claim.metric,
            "unit": "", "status": status[0], "reason": status[1],
            "paper": self._printed(claim), "ours": "–", "n_seeds": 0,
            "seconds": self._seconds(claim),
        }  # fmt: skip
        if isinstance(claim, TheoryClaim):
            values |= self._theory_values(claim)
        if evidence is None or ruling is None:
            return Verdict.from_numbers(**values)
        effects = evidence.effects
        values |= self._shown_effect(claim, evidence) | {
            "verdict": ruling.word, "without_failures": without, "ours": evidence.ours,
            "n_seeds": len(effects), "n_for": int((effects > 0).sum()),
            "p": ruling.p, "p_equivalence": ruling.equivalence, "g": hedges_g(effects),
            "skew_p": skewness_p(effects),
            "reason": "; ".join(
                filter(None, (evidence.incomplete, *evidence.note, self._against_table(claim)))
            ),
        }  # fmt: skip
        if ruling.word == "inconclusive" and claim.kind != "wider":
            sd = upper_sd(effects)
            values["seeds_needed"] = seeds_needed(sd, evidence.margin, alpha)
            values["detectable"] = self._amount(claim, detectable(sd, len(effects), alpha))
        if isinstance(claim, CellClaim):
            values |= self._cell_values(claim)
        return Verdict.from_numbers(**values)

    def _scale(self, claim: CellClaim) -> Scale:
        return self.court.claims.metrics[claim.metric]

    def _amount(self, claim: AnyClaim, effect: float) -> float:
        """Convert an effect's size to a difference, or to a ratio above 1."""
        if (
            isinstance(claim, CellClaim)
            and self.court.claims.metrics[claim.metric].scale == "ratio"
        ):
            return float(np.exp(min(effect, LARGEST_LOG)))
        return effect

    def _shown_effect(self, claim: AnyClaim, evidence: Evidence) -> dict[str, Any]:
        """Return effect and interval in the units of the table."""
        if isinstance(claim, TheoryClaim):
            effect, low, high, _, kind, _ = mean_interval(evidence.effects)
            return {
                "effect": effect, "low": low, "high": high, "interval": kind,
                "margin": evidence.margin,
            }  # fmt: skip
        scale = self._scale(claim)
        interval = mean_interval(evidence.effects, bounds=scale.bounds)
        low, high = sorted(map(scale.raw, (interval.low, interval.high)))
        selected = " at the selected step" * (claim.kind == "wider")
        return {
            "unit": unit_of(scale), "effect": scale.raw(interval.mean), "low": low, "high": high,
            "interval": interval.kind + selected, "cut": interval.cut, "margin": scale.smallest,
        }  # fmt: skip

    def _theory_values(self, claim: TheoryClaim) -> dict[str, Any]:
        finding = self.court.finding(claim)
        if finding is None:
            return {}
        holds = {True: "holds", False: "fails", None: None}[finding.holds]
        return {"unit": finding.unit, "ours": finding.ours, "check": holds, "reason": finding.note}

    def _cell_values(self, claim: CellClaim) -> dict[str, Any]:
        """Return floors, failures and diagnostics of a claim about two cells."""
        measured = self.court.measured
        scale = self._scale(claim)
        values: dict[str, Any] = {}
        floors = self.court.floors(claim)
        for name, cell, floor in zip("ab", (claim.a, claim.b), floors, strict=True):
            untrained = measured.untrained(claim.experiment, cell)
            values[f"{name}_at_floor"] = floor
            values[f"{name}_diverged"] = sum(measured.diverged(claim.experiment, cell))
            known = [word for word in untrained if word is not None]
            values[f"{name}_untrained"] = sum(known) if known else None
        if not measured.has_tasks:
            return values
        a, b = self.court.tasks(claim, scale)
        there = np.isfinite(a).any(1) & np.isfinite(b).any(1) | (claim.metric == ARRIVAL)
        a, b = a[there], b[there]
        if not len(a):
            return values
        paired = claim.a[1] == claim.b[1] and a.shape == b.shape
        values["improvement"] = improvement(scale.sign * a, scale.sign * b, paired=paired)
        drawn = self.diagnostics and claim.kind != "wider" and claim.metric != ARRIVAL
        if drawn and len(a) > 1:
            random = np.random.default_rng(seed_from("bootstrap", claim.id))
            ends = hierarchical_bootstrap(scale.lead, a, b, random, paired=paired)
            low, high = sorted(scale.raw(end) for end in ends)
            values |= {"bootstrap_low": low, "bootstrap_high": high}
        return values

    def _printed(self, claim: AnyClaim) -> str:
        if isinstance(claim, TheoryClaim):
            return "–"
        rows = (printed(self.paper, claim, cell) for cell in (claim.a, claim.b))
        return " vs ".join("–" if row is None else row["printed"] for row in rows)

    def _against_table(self, claim: AnyClaim) -> str:
        """Note that the paper's table contradicts its sentence; empty if it does not."""
        if isinstance(claim, TheoryClaim) or claim.kind != "better":
            return ""
        a, b = (printed(self.paper, claim, cell) for cell in (claim.a, claim.b))
        if a is None or b is None:
            return ""
        scale = self._scale(claim)
        if scale.sign * (float(a["value"]) - float(b["value"])) >= 0:
            return ""
        table = {"higher": "lower", "lower": "higher"}[scale.better]
        noted = "".join(f" ({row['note']})" for row in (a, b) if row["note"])
        return f"the sentence says {scale.better}, the table {table}{noted}"

    def _seconds(self, claim: AnyClaim) -> float:
        if isinstance(claim, TheoryClaim):
            files = self.court.measured.folder.theory_files()
            return _seconds(path.with_suffix(".json") for path in files)
        runs = {
            Run(claim.experiment, trained_on, method, order, seed)
            for trained_on, _, method, order in (claim.a, claim.b)
            for seed in self.court.profile.seeds
        }
        return _seconds(self.court.results / run.folder / "run.json" for run in runs)


def unit_of(scale: Scale) -> str:
    """Return the unit of effects on a scale."""
    return "points" if scale.scale == "points" else "ratio"


def _seconds(manifests: Iterable[Path]) -> float:
    return math.fsum(
        float(read_json(path, seconds=float)["seconds"]) for path in manifests if path.is_file()
    )
