"""The paper's claims as tests on measurements, and the verdict on each."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import TypeAdapter, ValidationError, model_validator

from lft.config import Profile, Settings
from lft.errors import UsageError
from lft.records import (
    CELL_COLUMNS,
    CLAIM_COLUMNS,
    THEORY_COLUMNS,
    Measurement,
    read_rows,
    write_rows,
)
from lft.report import theory_tests
from lft.report.statistics import Finding, Interval, equivalence_p, holm, paired, unpaired

REFERENCE = Path(__file__).resolve().parents[2] / "workflow" / "reference"
ALPHA = 0.05

CellName = tuple[str, str, str, str]
"""Trained on, tested on, method, order."""


class Claim(Settings):
    """One testable sentence of the paper; see the head of claims.yaml for the kinds."""

    id: str
    claim: str
    place: str
    kind: Literal["order", "drop", "equal", "wider", "theory"]
    figure: str
    experiment: str | None = None
    metric: str | None = None
    better: Literal["higher", "lower"] = "higher"
    a: CellName | None = None
    b: CellName | None = None
    step: int | None = None
    early: int | None = None
    tolerance: float = 0.0
    test: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Claim:
        cells = None not in (self.experiment, self.metric, self.a, self.b, self.step)
        if not (self.test in theory_tests.TESTS if self.kind == "theory" else cells):
            raise ValueError(f"claim {self.id!r} lacks keys that its kind {self.kind!r} needs")
        return self


@dataclass(frozen=True)
class Outcome:
    """What came out for one claim.

    Attributes:
        paper, ours: the numbers compared, as text.
        finding: interval, p-value, and whether estimate and every seed are on the claim's side.
        p: the finding's p-value after Holm's adjustment across all claims.
        verdict: reproduced, direction only, not reproduced or inconclusive.
        reason: what is missing, or what else should be known.
    """

    claim: Claim
    paper: str
    ours: str
    finding: Finding | None
    n_seeds: int
    reason: str
    p: float = np.nan
    verdict: str = "inconclusive"


def load_claims(path: Path = REFERENCE / "claims.yaml") -> list[Claim]:
    """Read the curated claims.

    Raises:
        UsageError: the file is not valid; the message names the claim.
    """
    try:
        return TypeAdapter(list[Claim]).validate_python(yaml.safe_load(path.read_text("utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())[:300]}") from None


def load_paper(path: Path = REFERENCE / "paper.csv") -> dict[tuple[str, ...], dict[str, str]]:
    """Printed numbers by (trained on, tested on, method, metric)."""
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["trained_on"], row["tested_on"], row["method"], row["metric"]): row
            for row in csv.DictReader(file)
        }


def judge(profile: Profile, results: Path) -> list[Outcome]:
    """Test every claim on a result folder and give the verdicts.

    Order claims are tested on pairs of the same test task and seed. Pairs of one seed share one
    meta-training, so ``reproduced`` also needs every seed's mean to be on the claim's side.
    p-values are adjusted by Holm across all claims. A diverged run counts against its method.
    """
    measurements = read_rows(results / "measurements.csv", Measurement._fields)
    cells = read_rows(results / "cells.csv", CELL_COLUMNS)
    theory = read_rows(results / "theory.csv", THEORY_COLUMNS)
    outcomes = [
        _theory_outcome(claim, theory)
        if claim.kind == "theory"
        else _cell_outcome(claim, profile, measurements, cells)
        for claim in load_claims()
    ]
    adjusted = holm([o.finding.p if o.finding else np.nan for o in outcomes])
    return [
        replace(o, p=float(p), verdict=_verdict(o, float(p)))
        for o, p in zip(outcomes, adjusted, strict=True)
    ]


def write_claims(profile: Profile, results: Path) -> None:
    """Write claims.csv."""
    none = Interval(np.nan, np.nan, np.nan, 0, "none")
    rows = []
    for o in judge(profile, results):
        interval = o.finding.interval if o.finding else none
        rows.append(
            (
                o.claim.id,
                o.claim.metric or o.claim.test,
                o.paper,
                o.ours,
                interval.mean,
                interval.low,
                interval.high,
                interval.kind,
                o.n_seeds,
                o.p,
                o.verdict,
                o.reason,
                o.claim.figure,
                o.claim.claim,
                o.claim.place,
            )
        )
    write_rows(results / "claims.csv", CLAIM_COLUMNS, rows)


def _verdict(outcome: Outcome, p: float) -> str:
    finding = outcome.finding
    if finding is None or outcome.reason.startswith("n ="):
        return "inconclusive"
    if not finding.holds:
        return "not reproduced"
    if np.isnan(p) and not finding.certain:
        return "inconclusive"
    proven = finding.every_seed and (finding.certain or p < ALPHA)
    return "reproduced" if proven else "direction only"


def _theory_outcome(claim: Claim, theory: pd.DataFrame) -> Outcome:
    assert claim.test
    found = theory_tests.TESTS[claim.test](theory)
    if found is None:
        return Outcome(claim, "–", "–", None, 0, "no measurement of the theory")
    ours, finding = found
    return Outcome(claim, "–", ours, finding, theory["seed"].nunique(), "")


def _cell_outcome(
    claim: Claim, profile: Profile, measurements: pd.DataFrame, cells: pd.DataFrame
) -> Outcome:
    assert claim.a and claim.b and claim.step and claim.metric
    paper = load_paper()
    printed = " vs ".join(
        paper.get((*cell[:3], claim.metric), {}).get("printed", "–") for cell in (claim.a, claim.b)
    )
    for cell in (claim.a, claim.b):
        status = _status(cells, claim, cell)
        if "diverged" in status and cell == claim.a:
            finding = Finding(Interval(np.nan, np.nan, np.nan, 0, "none"), np.nan, False, False)
            count = f"{status.count('diverged')} of {len(status)} seeds"
            return Outcome(claim, printed, "diverged", finding, 0, f"{cell[2]} diverged in {count}")
        if "ok" not in status:
            return Outcome(claim, printed, "–", None, 0, f"no measurement of {' '.join(cell)}")
    a, b = (_at_step(measurements, claim, cell, claim.step) for cell in (claim.a, claim.b))
    a, b = _with_worst_for_nan(a, b, claim)
    seeds = sorted(set(a.index.get_level_values("seed")) & set(b.index.get_level_values("seed")))
    ours = f"{a.mean():.3g} vs {b.mean():.3g}"
    complete = len(seeds) == len(profile.seeds) and len(seeds) > 1
    reason = "" if complete else f"n = {len(seeds)}/{len(profile.seeds)} seeds"
    sign = 1.0 if claim.better == "higher" else -1.0
    if claim.kind == "drop":
        comparison = unpaired(a.to_numpy(), b.to_numpy())
        leads = [sign * (a[seed].mean() - b[seed].mean()) for seed in seeds]
    else:
        difference = (a - b).dropna()
        if claim.kind == "wider":
            assert claim.early
            early = [_at_step(measurements, claim, c, claim.early) for c in (claim.a, claim.b)]
            lead = (early[0] - early[1]).dropna()
            ours = f"lead {lead.mean():.3g} at step {claim.early}, {difference.mean():.3g} at last"
            difference = (lead - difference).dropna()
        comparison = paired(difference.to_numpy(), np.zeros(len(difference)))
        leads = [sign * difference[seed].mean() for seed in seeds]
    holds = sign * comparison.difference.mean > 0
    finding = Finding(comparison.difference, comparison.p, holds, all(lead > 0 for lead in leads))
    if claim.kind == "equal":
        margin = claim.tolerance * (1.0 if claim.metric == "accuracy" else float(b.mean()))
        within = [abs(lead) < margin for lead in leads]
        finding = Finding(
            comparison.difference,
            equivalence_p(difference.to_numpy(), margin),
            bool(abs(comparison.difference.mean) < margin),
            all(within),
        )
        reason = reason or f"equal within ±{margin:.3g}"
    elif not reason and comparison.effect == comparison.effect:
        reason = f"effect size {comparison.effect:.2f}"
    return Outcome(claim, printed, ours, finding, len(seeds), reason)


def _status(cells: pd.DataFrame, claim: Claim, cell: CellName) -> list[str]:
    return list(_select(cells, claim, cell)["status"].astype(str))


def _select(frame: pd.DataFrame, claim: Claim, cell: CellName) -> pd.DataFrame:
    trained_on, tested_on, method, order = cell
    return frame[
        (frame["experiment"] == claim.experiment)
        & (frame["trained_on"] == trained_on)
        & (frame["tested_on"] == tested_on)
        & (frame["method"] == method)
        & (frame["order"] == order)
    ]


def _at_step(
    measurements: pd.DataFrame, claim: Claim, cell: CellName, step: int
) -> pd.Series[float]:
    """Values indexed by (seed, task), at the step or at the last one before it."""
    rows = _select(measurements, claim, cell)
    rows = rows[rows["metric"] == claim.metric]
    last = rows["step"].max() if claim.metric == "first_full" else min(step, rows["step"].max())
    rows = rows[rows["step"] == last].astype({"task": str})
    values: pd.Series[float] = rows.set_index(["seed", "task"])["value"]
    return values.sort_index()


def _with_worst_for_nan(
    a: pd.Series[float], b: pd.Series[float], claim: Claim
) -> tuple[pd.Series[float], pd.Series[float]]:
    """NaN stands for a failure: a diverged task gets the worst value seen, a task whose ASR never
    reached 100 % gets one step more than were made."""
    both = pd.concat([a, b])
    worst = both.min() if claim.better == "higher" else both.max()
    if claim.metric == "first_full":
        worst = float(claim.step or 0) + 1
    return a.fillna(worst), b.fillna(worst)
