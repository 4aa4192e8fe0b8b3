"""The paper's claims as tests on measurements, and the verdict on each."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import ValidationError, field_validator, model_validator

from lft.config import Order, Profile, Run, Settings, explain, read_yaml
from lft.errors import UsageError, suggestion
from lft.methods import METHODS
from lft.paths import shipped
from lft.report import theory_tests
from lft.report.statistics import (
    NOTHING,
    Finding,
    equivalence_p,
    holm,
    mean_interval,
    paired,
    unpaired,
)
from lft.results.records import (
    CELL_COLUMNS,
    CLAIM_COLUMNS,
    THEORY_COLUMNS,
    Measurement,
    read_json,
    read_rows,
    write_rows,
)

REFERENCE = shipped("workflow", "reference")
ALPHA = 0.05
SHARES = ("asr", "accuracy")
"""Metrics that are shown in per cent, as the paper prints them."""

CellName = tuple[str, str, str, Order]
"""Trained on, tested on, method, order."""

Values = pd.Series  # of float, indexed by (seed, task)


class Claim(Settings):
    """One testable sentence of the paper; the head of claims.yaml explains the kinds."""

    id: str
    claim: str
    place: str
    figure: str


class CellClaim(Claim):
    """A claim about two cells of the result tables."""

    kind: Literal["order", "drop", "equal", "wider"]
    experiment: str
    metric: str
    better: Literal["higher", "lower"]
    a: CellName
    b: CellName
    step: int
    early: int | None = None
    tolerance: float | None = None
    relative: bool = False

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> CellClaim:
        for kind, key in (("equal", "tolerance"), ("wider", "early")):
            if (self.kind == kind) != (getattr(self, key) is not None):
                raise ValueError(f"key {key!r} belongs to kind {kind!r}, and only there")
        for _, _, method, _ in (self.a, self.b):
            if method not in METHODS:
                raise ValueError(f"unknown method {method!r}{suggestion(method, METHODS)}")
        return self


class TheoryClaim(Claim):
    """A claim about the rows of theory.csv."""

    kind: Literal["theory"]
    test: str

    @field_validator("test")
    @classmethod
    def _known(cls, test: str) -> str:
        if test not in theory_tests.TESTS:
            raise ValueError(f"unknown test {test!r}{suggestion(test, theory_tests.TESTS)}")
        return test


@dataclass(frozen=True)
class Outcome:
    """What came out for one claim.

    Attributes:
        paper: the printed numbers that are compared, as text.
        finding: None where nothing was measured.
        n_seeds: seeds with a value for everything that is compared.
        reason: what is missing for a verdict; empty if nothing is.
        seconds: of the meta-trainings and theory measurements that the claim rests on.
        p: the finding's p-value after Holm's adjustment across all claims.
        verdict: reproduced, direction only, not reproduced or inconclusive.
    """

    claim: CellClaim | TheoryClaim
    paper: str
    finding: Finding | None
    n_seeds: int
    reason: str
    seconds: float
    p: float = np.nan
    verdict: str = "inconclusive"


def load_claims(path: Path = REFERENCE / "claims.yaml") -> list[CellClaim | TheoryClaim]:
    """Read the curated claims.

    Raises:
        UsageError: the file is not valid; the message names the claim and the key.
    """
    entries = read_yaml(path, "claims")
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise UsageError(f"{path}: expected a list of claims")
    claims: list[CellClaim | TheoryClaim] = []
    for number, entry in enumerate(entries, start=1):
        kind = TheoryClaim if entry.get("kind") == "theory" else CellClaim
        try:
            claims.append(kind.model_validate(entry))
        except ValidationError as error:
            where = f"claim {number} ({entry.get('id', 'without id')})"
            raise UsageError(f"{path}: {where}: {explain(error, kind)}") from None
        if claims[-1].id in {claim.id for claim in claims[:-1]}:
            raise UsageError(f"{path}: claim {claims[-1].id!r} is listed twice")
    return claims


def load_paper(path: Path = REFERENCE / "paper.csv") -> dict[tuple[str, ...], dict[str, str]]:
    """Printed numbers by (trained on, tested on, method, metric)."""
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["trained_on"], row["tested_on"], row["method"], row["metric"]): row
            for row in csv.DictReader(file)
        }


def judge(
    profile: Profile, results: Path, claims: Iterable[CellClaim | TheoryClaim] | None = None
) -> list[Outcome]:
    """Test claims, by default the paper's, on a result folder and give the verdicts.

    Two things are left to chance: which test tasks are drawn, and how each meta-training (seed)
    went. A claim about two cells is ``reproduced`` if neither explains the difference:

    - tasks: the paired t test over pairs of the same test task and seed (Welch's where the two
      cells have different tasks) has p < 0.05 after Holm's adjustment across the claims;
    - seeds: the 95 % t interval over the seeds' mean differences lies on the claim's side.

    With the mean alone on the claim's side it is reproduced in ``direction only``. Missing seeds,
    or a single one, leave it ``inconclusive``.

    A diverged run counts as a failure of its method: each of its tasks gets the worst value that
    either cell has, and so does a single task with a NaN. A task on which the attack never had ASR
    100 % gets one step more than were made.

    Claims about the theory are judged by their interval over seeds, or need none where they are
    exact: see :mod:`lft.report.theory_tests`.
    """
    chosen = list(load_claims() if claims is None else claims)
    measured = _Measured(profile, results, [c for c in chosen if isinstance(c, CellClaim)])
    theory = read_rows(results / "theory.csv", THEORY_COLUMNS)
    outcomes = [
        _theory_outcome(claim, profile, results, theory)
        if isinstance(claim, TheoryClaim)
        else _cell_outcome(claim, profile, results, measured)
        for claim in chosen
    ]
    adjusted = holm([o.finding.p if o.finding and not o.reason else np.nan for o in outcomes])
    return [
        replace(outcome, p=float(p), verdict=_verdict(outcome, float(p)))
        for outcome, p in zip(outcomes, adjusted, strict=True)
    ]


def write_claims(profile: Profile, results: Path) -> None:
    """Write claims.csv."""
    rows = []
    for o in judge(profile, results):
        finding = o.finding or Finding("–", NOTHING, False, False)
        interval, claim = finding.interval, o.claim
        rows.append(
            (
                *(claim.id, claim.metric if isinstance(claim, CellClaim) else claim.test),
                *(o.paper, finding.ours, interval.mean, interval.low, interval.high, interval.kind),
                *(o.n_seeds, o.p, o.verdict, "; ".join(filter(None, (o.reason, finding.note)))),
                *(claim.figure, claim.claim, claim.place, o.seconds),
            )
        )
    write_rows(results / "claims.csv", CLAIM_COLUMNS, rows)


def _verdict(outcome: Outcome, p: float) -> str:
    finding = outcome.finding
    if finding is None or outcome.reason:
        return "inconclusive"
    if not finding.holds:
        return "not reproduced"
    return "reproduced" if finding.proven and not p >= ALPHA else "direction only"


class _Measured:
    """Values per seed and test task of the cells that the claims speak of."""

    def __init__(self, profile: Profile, results: Path, claims: Collection[CellClaim]) -> None:
        self.profile = profile
        rows = read_rows(results / "measurements.csv", Measurement._fields)
        steps = {self.at_most(claim, step) for claim in claims for step in _steps(claim)}
        rows = rows[rows["metric"].isin({claim.metric for claim in claims})]
        rows = rows[rows["step"].isin(steps)].astype({"task": str})
        keys = ["experiment", "trained_on", "tested_on", "method", "order"]
        self.values = {
            key: group.set_index(["seed", "task"])["value"]
            for key, group in rows.groupby([*keys, "metric", "step"], observed=True)
        }
        cells = read_rows(results / "cells.csv", CELL_COLUMNS).astype({"status": str})
        self.status = {
            key: dict(zip(group["seed"], group["status"], strict=True))
            for key, group in cells.groupby(keys, observed=True)
        }

    def at_most(self, claim: CellClaim, step: int) -> int:
        """The step, or the last one before it that the profile measures."""
        experiment = self.profile.experiments.get(claim.experiment)
        return experiment.testing.written(step) if experiment else step

    def obstacle(self, claim: CellClaim, cell: CellName) -> str:
        """Why a cell has no values at all; empty if it has, or if all its seeds diverged."""
        trained_on, tested_on, method, order = cell
        words = f"{method} ({trained_on} to {tested_on}, {order} order)"
        if claim.experiment not in self.profile.experiments:
            return f"experiment {claim.experiment!r} is not in this profile"
        status = set(self.status.get((claim.experiment, *cell), {}).values())
        if not status:
            return f"{words} is not in this profile"
        if status == {"not applicable"}:
            return f"{words} is not applicable"
        return f"{words} has not been measured" if status == {"missing"} else ""

    def pair(self, claim: CellClaim, step: int) -> tuple[Values, Values]:
        """Values of both cells after a step, those of diverged runs and tasks made the worst."""
        step = self.at_most(claim, step)
        found = [self._values(claim, cell, step) for cell in (claim.a, claim.b)]
        tasks = [values.index.get_level_values("task").unique() for values in found]
        either = tasks[0].union(tasks[1])
        a, b = (
            _with_failures(values, self.diverged(claim, cell), own if len(own) else either)
            for values, cell, own in zip(found, (claim.a, claim.b), tasks, strict=True)
        )
        both = pd.concat([a, b])
        worst = both.min() if claim.better == "higher" else both.max()
        if claim.metric == "first_full":
            worst = step + 1
        return a.fillna(worst).sort_index(), b.fillna(worst).sort_index()

    def diverged(self, claim: CellClaim, cell: CellName) -> list[int]:
        status = self.status.get((claim.experiment, *cell), {})
        return [seed for seed, word in status.items() if word == "diverged"]

    def _values(self, claim: CellClaim, cell: CellName, step: int) -> Values:
        empty = pd.MultiIndex.from_arrays([[], []], names=["seed", "task"])
        key = (claim.experiment, *cell, claim.metric, step)
        return self.values.get(key, pd.Series(index=empty, dtype=float))


def _with_failures(values: Values, seeds: list[int], tasks: pd.Index[str]) -> Values:
    """Values and a NaN for every task of every diverged seed."""
    failed = pd.MultiIndex.from_product([seeds, tasks], names=["seed", "task"])
    return pd.concat([values, pd.Series(np.nan, index=failed)]) if len(failed) else values


def _steps(claim: CellClaim) -> list[int]:
    return [claim.step] if claim.early is None else [claim.step, claim.early]


def _cell_outcome(
    claim: CellClaim, profile: Profile, results: Path, measured: _Measured
) -> Outcome:
    cells = (claim.a, claim.b)
    known = load_paper()
    printed = " vs ".join(
        known.get((*cell[:3], claim.metric), {}).get("printed", "–") if cell[3] == "first" else "–"
        for cell in cells
    )
    seconds = _training_seconds(claim, profile, results)
    obstacles = [why for cell in cells if (why := measured.obstacle(claim, cell))]
    if obstacles:
        return Outcome(claim, printed, None, 0, obstacles[0], seconds)
    a, b = measured.pair(claim, claim.step)
    finding = _test(claim, a, b, measured)
    n_seeds, n_planned = finding.interval.n, len(profile.seeds)
    reason = "" if 1 < n_seeds == n_planned else f"n = {n_seeds}/{n_planned} seeds"
    if np.isnan(finding.interval.mean):
        reason = "every seed of both diverged"
    return Outcome(claim, printed, finding, n_seeds, reason, seconds)


def _test(claim: CellClaim, a: Values, b: Values, measured: _Measured) -> Finding:
    """Compare two cells as the claim's kind asks; see :func:`judge`."""
    last = measured.at_most(claim, claim.step)
    notes = [f"step {last}"] if last < claim.step and claim.metric != "first_full" else []
    for cell in (claim.a, claim.b):
        if failed := measured.diverged(claim, cell):
            n_planned = len(measured.profile.seeds)
            notes.append(f"{cell[2]} diverged in {len(failed)} of {n_planned} seeds")
    ours = f"{_shown(claim, a)} vs {_shown(claim, b)}"
    if claim.early is not None:
        early_a, early_b = measured.pair(claim, claim.early)
        a, b = early_a - early_b, a - b
        ours = f"lead {_shown(claim, a)} at step {claim.early}, {_shown(claim, b)} at step {last}"
    of_seeds = (_by_seed(a) - _by_seed(b)).dropna()
    interval = mean_interval(of_seeds)
    if claim.tolerance is not None:
        margin = claim.tolerance * (abs(float(b.mean())) if claim.relative else 1.0)
        p = equivalence_p((a - b).dropna(), margin)
        notes.append(f"equal within ±{margin:.3g}")
        proven = -margin < interval.low and interval.high < margin
        return Finding(
            ours, interval, abs(interval.mean) < margin, proven, p=p, note="; ".join(notes)
        )
    if claim.kind == "drop":
        test = unpaired(a, b)
    else:
        difference = (a - b).dropna()
        test = paired(difference, np.zeros(len(difference)))
    if np.isfinite(test.effect):
        notes.append(f"effect size {test.effect:.2f}")
    sign = 1.0 if claim.better == "higher" else -1.0
    holds = sign * interval.mean > 0 and not (claim.kind == "wider" and sign * a.mean() <= 0)
    proven = min(sign * interval.low, sign * interval.high) > 0
    return Finding(ours, interval, holds, proven, p=test.p, note="; ".join(notes))


def _shown(claim: CellClaim, values: Values) -> str:
    mean = float(values.mean())
    return f"{100 * mean:.1f} %" if claim.metric in SHARES else f"{mean:.3g}"


def _by_seed(values: Values) -> Values:
    return values.groupby(level="seed").mean()


def _theory_outcome(
    claim: TheoryClaim, profile: Profile, results: Path, theory: pd.DataFrame
) -> Outcome:
    manifests = [results / "theory" / f"{name}.json" for name in profile.theory_experiments]
    seconds = _seconds(manifests)
    finding = theory_tests.TESTS[claim.test](theory)
    if finding is None:
        planned = (
            "has not been measured" if profile.theory_experiments else "is not in this profile"
        )
        return Outcome(claim, "–", None, 0, f"the theory {planned}", seconds)
    n_seeds = int(theory["seed"].nunique()) if finding.exact else finding.interval.n
    enough = finding.exact or 1 < n_seeds == len(profile.seeds)
    reason = "" if enough else f"n = {n_seeds}/{len(profile.seeds)} seeds"
    return Outcome(claim, "–", finding, n_seeds, reason, seconds)


def _training_seconds(claim: CellClaim, profile: Profile, results: Path) -> float:
    runs = {
        Run(claim.experiment, trained_on, method, order, seed)
        for trained_on, _, method, order in (claim.a, claim.b)
        for seed in profile.seeds
    }
    return _seconds(results / run.folder / "run.json" for run in runs)


def _seconds(manifests: Iterable[Path]) -> float:
    return sum(
        float(read_json(path, seconds=float)["seconds"]) for path in manifests if path.is_file()
    )
