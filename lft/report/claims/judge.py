"""Verdicts: every claim of the paper tested over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lft.config import Profile, Run
from lft.metrics import metric_of
from lft.report import theory_tests
from lft.report.claims.model import CellClaim, Claims, TheoryClaim, load_claims, load_paper
from lft.report.claims.verdict import Status, Verdict, Word
from lft.report.effects import ARRIVAL, CellName, Measured, Scale
from lft.report.statistics import (
    ALPHA,
    Finding,
    Floats,
    beyond_p,
    detectable,
    equivalence_p,
    hedges_g,
    hierarchical_bootstrap,
    holm,
    improvement,
    largest_mean_p,
    mean_interval,
    restricted_mean,
    seeds_needed,
    share_arrived,
    two_sided_p,
    upper_sd,
)
from lft.seeding import seed_from
from lft.storage.json import read_json

LARGEST_LOG = 20.0
"""Of a ratio that is written down."""
AnyClaim = CellClaim | TheoryClaim


@dataclass(frozen=True)
class Evidence:
    """What the seeds say about one claim.

    Attributes:
        ours: both numbers, as text.
        kind: as in claims.yaml.
        effects: (seeds,) leads of a over b on the metric's scale, positive on the claim's side.
        margin: smallest effect of interest on that scale.
        p: of the claim's own test, two-sided and not yet adjusted.
        equivalence: p of the two one-sided tests; NaN where the claim itself is one of equality.
        vacuous: the floor rule's outcome.
        n_planned: seeds that the profile has.
        note: what else should be known.
    """

    ours: str
    kind: str
    effects: Floats
    margin: float
    p: float
    equivalence: float
    vacuous: bool
    n_planned: int
    note: tuple[str, ...] = ()

    @property
    def incomplete(self) -> str:
        """Why there can be no verdict yet; empty if there can."""
        n = len(self.effects)
        return "" if 1 < n == self.n_planned else f"n = {n}/{self.n_planned} seeds"


def judge(
    profile: Profile, results: Path, claims: Claims | None = None, *, diagnostics: bool = True
) -> list[Verdict]:
    """Test claims, by default the paper's, on a result folder and give the verdicts.

    The unit is the seed: of each, the mean over test tasks of one cell minus that of another (or
    the logarithm of their ratio) is one number, and the claim is about the mean of these numbers.
    In this order a claim is

    - ``vacuous`` if both methods, of a claim of equality either, are not better than having learned
      nothing (one-sided t test at 5 %);
    - ``negligible`` if p < 0.05, but the 90 % interval lies within ± the smallest effect of
      interest;
    - ``supported`` or ``contradicted`` if p < 0.05, by the side;
    - ``no difference`` if two one-sided tests place it within ± the smallest effect of interest;
    - ``inconclusive`` otherwise.

    p is that of a two-sided t test over seeds, Holm-adjusted over all empirical claims that the
    profile plans; the equivalence tests are adjusted among themselves. Every verdict is computed
    again without the seeds in which a run diverged or was not trained.

    Args:
        diagnostics: whether the rows have bootstrap intervals, too.
    """
    chosen = claims or load_claims()
    court = _Court(profile, results, chosen, diagnostics=diagnostics)
    statuses = [court.status(claim) for claim in chosen.claims]
    found = [
        court.evidence(claim) if status == "judged" else None
        for claim, (status, _) in zip(chosen.claims, statuses, strict=True)
    ]
    sound = [
        court.evidence(claim, sound=True)
        if evidence is not None and court.failed(claim)
        else evidence
        for claim, evidence in zip(chosen.claims, found, strict=True)
    ]
    tests = [
        claim.kind != "check" and status in ("judged", "not measured")
        for claim, (status, _) in zip(chosen.claims, statuses, strict=True)
    ]
    rulings = decide_all(found, tests)
    without = [ruling and ruling.word for ruling in decide_all(sound, tests)]
    judged = zip(chosen.claims, statuses, found, rulings, without, strict=True)
    return [court.verdict(*row, ALPHA / max(1, sum(tests))) for row in judged]


class Ruling(NamedTuple):
    """A verdict with the adjusted p-values of the claim's own test and of equivalence."""

    word: Word
    p: float
    equivalence: float


def decide_all(found: Sequence[Evidence | None], tests: Sequence[bool]) -> list[Ruling | None]:
    """Verdicts of a family of claims.

    Args:
        found: None where there is nothing to judge.
        tests: which of them count in the adjustments.
    """
    counted = np.array(tests, dtype=bool)
    usable = [e if e is not None and not e.incomplete else None for e in found]
    p = np.array([np.nan if e is None else e.p for e in usable])
    equal = np.array([np.nan if e is None else e.equivalence for e in usable])
    p[counted], equal[counted] = holm(p[counted]), holm(equal[counted])
    return [
        None if evidence is None else Ruling(decide(evidence, of, same), of, same)
        for evidence, of, same in zip(found, p.tolist(), equal.tolist(), strict=True)
    ]


def decide(evidence: Evidence, p: float, equivalence: float) -> Word:
    """The verdict on one claim, from adjusted p-values; see :func:`judge` for the order."""
    if evidence.incomplete:
        return "inconclusive"
    if evidence.vacuous:
        return "vacuous"
    effects, margin = evidence.effects, evidence.margin
    mean = float(effects.mean())
    if p < ALPHA:
        if evidence.kind == "equivalent":
            return "supported" if abs(mean) < margin else "contradicted"
        if evidence.kind == "not-worse":
            return "supported" if mean > -margin else "contradicted"
        narrow = mean_interval(effects, level=1 - 2 * ALPHA)
        if -margin < narrow.low and narrow.high < margin:
            return "negligible"
        return "supported" if mean > 0 else "contradicted"
    return "no difference" if equivalence < ALPHA else "inconclusive"


def claim_p(kind: str, effects: Floats, margin: float) -> float:
    """Two-sided p of a claim's own test.

    A claim of non-inferiority is tested against −margin in place of 0; one of equivalence by two
    one-sided tests where the mean lies within ± margin, and by the test that it lies beyond where
    it does not.
    """
    if kind == "not-worse":
        return two_sided_p(effects, -margin)
    if kind == "equivalent":
        within = len(effects) > 0 and abs(effects.mean()) < margin
        return equivalence_p(effects, margin) if within else beyond_p(effects, margin)
    return two_sided_p(effects)


def no_difference_p(kind: str, effects: Floats, margin: float) -> float:
    """p of "no difference"; claims of equality ask for it themselves."""
    return np.nan if kind in ("equivalent", "not-worse") else equivalence_p(effects, margin)


def wider(
    leads: Floats, margin: float, random: np.random.Generator
) -> tuple[int, Floats, float, float]:
    """Whether the largest lead before the last step exceeds that after it.

    Supported only if the lead itself is one, since being behind by less is none; contradicted only
    if the leads at all earlier steps are smaller than the last; no difference only if none of them
    differs.

    Args:
        leads: (seeds, steps), the last step in the last column.

    Returns:
        The step's column, excesses over the last lead there (seeds,), the two-sided p and that of
        no difference.
    """
    excess = leads[:, :-1] - leads[:, -1:]
    column, above = largest_mean_p(excess, random)
    chosen, early = excess[:, column], leads[:, column]
    if excess.size == 0 or np.isnan(above):
        return column, chosen, np.nan, np.nan
    if chosen.mean() > 0:
        p = max(2 * above, two_sided_p(early)) if early.mean() > 0 else 1.0
    else:
        p = max(two_sided_p(of_step) for of_step in excess.T)
    same = max(equivalence_p(of_step, margin) for of_step in excess.T)
    return column, chosen, min(1.0, p), same


class _Court:
    """Everything that the verdicts on one result folder need, read once."""

    def __init__(
        self, profile: Profile, results: Path, claims: Claims, *, diagnostics: bool = False
    ) -> None:
        self.profile, self.results, self.claims = profile, results, claims
        self.diagnostics = diagnostics
        self.measured = Measured(profile, results, sorted(claims.metrics))
        self.theory = self.measured.folder.theory
        self.paper = load_paper()
        self._findings: dict[str, Finding | None] = {}

    # ------------------------------------------------------------ what there is

    def status(self, claim: AnyClaim) -> tuple[Status, str]:
        """Whether a claim can be judged, and why not."""
        if isinstance(claim, TheoryClaim):
            if not self.profile.theory_experiments:
                return "not in this profile", "the profile measures no theory"
            if self._finding(claim) is None:
                return "not measured", "the theory has not been measured"
            return "judged", ""
        if claim.experiment not in self.profile.experiments:
            return "not in this profile", f"experiment {claim.experiment!r} is not in this profile"
        for cell in (claim.a, claim.b):
            status, reason = self._cell_status(claim.experiment, cell)
            if status != "judged":
                return status, reason
        return "judged", ""

    def _cell_status(self, experiment: str, cell: CellName) -> tuple[Status, str]:
        trained_on, tested_on, method, order = cell
        words = f"{method} ({trained_on} to {tested_on}, {order} order)"
        found = set(self.measured.status.get((experiment, *cell), {}).values())
        if not found:
            return "not in this profile", f"{words} is not in this profile"
        if found == {"not applicable"}:
            return "not applicable", f"{words} is not applicable"
        if found == {"missing"}:
            return "not measured", f"{words} has not been measured"
        return "judged", ""

    def failed(self, claim: AnyClaim) -> bool:
        """Whether a run behind the claim diverged or was not trained."""
        return isinstance(claim, CellClaim) and bool(self._failures(claim).any())

    def _failures(self, claim: CellClaim) -> np.ndarray:
        """(seeds,) of either cell."""
        failed = np.zeros(len(self.profile.seeds), dtype=bool)
        for cell in (claim.a, claim.b):
            failed |= np.array(self.measured.diverged(claim.experiment, cell))
            untrained = self.measured.untrained(claim.experiment, cell)
            failed |= np.array([bool(word) for word in untrained])
        return failed

    # ------------------------------------------------------------ evidence

    def evidence(self, claim: AnyClaim, *, sound: bool = False) -> Evidence | None:
        """What the seeds say; ``sound`` leaves out those in which a run failed."""
        if isinstance(claim, TheoryClaim):
            return self._of_theory(claim)
        keep = np.ones(len(self.profile.seeds), dtype=bool)
        if sound:
            keep = ~self._failures(claim)
        scale = self.claims.metrics[claim.metric]
        leads, ours, note = self._leads(claim, scale)
        known = keep & np.isfinite(leads).all(1)
        effects, p = leads[:, -1][known], np.nan
        p = claim_p(claim.kind, effects, scale.margin)
        same = no_difference_p(claim.kind, effects, scale.margin)
        if claim.kind == "wider":
            random = np.random.default_rng(seed_from("rotations", claim.id))
            column, effects, p, same = wider(leads[known], scale.margin, random)
            step = self._steps(claim)[column]
            lead = _amount(scale, leads[known][:, column])
            note = (*note, f"largest lead before the last step: {lead}, at step {step}")
        return Evidence(
            ours, claim.kind, effects, scale.margin, p, same, self._vacuous(claim, scale),
            int(keep.sum()), note,
        )  # fmt: skip

    def _steps(self, claim: CellClaim) -> list[int]:
        """The steps that a claim looks at, the last one last."""
        last = self.measured.last_step(claim.experiment, claim.step)
        if claim.kind != "wider":
            return [last]
        return [step for step in self.measured.steps(claim.experiment) if 0 < step <= last]

    def _leads(self, claim: CellClaim, scale: Scale) -> tuple[Floats, str, tuple[str, ...]]:
        """Leads (seeds, steps) up to the claim's step, both means as text, and notes."""
        measured = self.measured
        metric = metric_of(claim.metric)
        if claim.metric == ARRIVAL:
            a, b = (measured.arrivals(claim.experiment, cell) for cell in (claim.a, claim.b))
            ours = " vs ".join(self._arrival_text(claim.experiment, v) for v in (a, b))
            return scale.lead(a, b)[:, None], ours, tuple(self._arrival_notes(claim))
        last = measured.last_step(claim.experiment, claim.step)
        means = [
            [values.mean(1) for values in measured.pair(
                claim.experiment, claim.a, claim.b, claim.metric, scale, step
            )]
            for step in self._steps(claim)
        ]  # fmt: skip
        a, b = np.array(means).transpose(1, 2, 0)
        ours = " vs ".join(metric.shown(scale.centre(v[:, -1])) for v in (a, b))
        return scale.lead(a, b), ours, (f"after {last} steps",) if last != claim.step else ()

    def _arrival_text(self, experiment: str, arrivals: Floats) -> str:
        last = self.profile.experiments[experiment].testing.steps
        known = arrivals[np.isfinite(arrivals)]
        arrived = known[known <= last]
        if len(arrived) == 0:
            return "never"
        late = f" ({len(known) - len(arrived)} of {len(known)} seeds never)"
        return f"{arrived.mean():.0f}" + late * (len(arrived) < len(known))

    def _arrival_notes(self, claim: CellClaim) -> Iterable[str]:
        """Share of tasks that ever get there, and the restricted mean of their first step."""
        horizon = self.profile.experiments[claim.experiment].testing.steps
        for name, cell in (("a", claim.a), ("b", claim.b)):
            first = self.measured.task_arrivals(claim.experiment, cell)
            yield (
                f"{cell[2]}: {share_arrived(first):.0%} of tasks arrive, restricted mean "
                f"{restricted_mean(np.where(np.isinf(first), np.nan, first), horizon):.0f} steps"
            )

    def _vacuous(self, claim: CellClaim, scale: Scale) -> bool:
        floors = self.floors(claim)
        if claim.kind in ("equivalent", "not-worse"):
            return any(floor is True for floor in floors)
        return all(floor is True for floor in floors)

    def floors(self, claim: CellClaim) -> tuple[bool | None, bool | None]:
        """Whether either cell is at its floor."""
        scale, asr = self.claims.metrics[claim.metric], self.claims.metrics["asr"]
        step = self.measured.last_step(claim.experiment, claim.step)
        a, b = (
            self.measured.at_floor(claim.experiment, cell, claim.metric, scale, asr, step)
            for cell in (claim.a, claim.b)
        )
        return a, b

    def _finding(self, claim: TheoryClaim) -> Finding | None:
        if claim.test not in self._findings:
            self._findings[claim.test] = theory_tests.TESTS[claim.test](self.theory)
        return self._findings[claim.test]

    def _of_theory(self, claim: TheoryClaim) -> Evidence | None:
        finding = self._finding(claim)
        if finding is None or claim.kind == "check":
            return None
        effects, margin = np.array(finding.effects, dtype=float), finding.smallest
        kind = "not-worse" if finding.equal else "better"
        p = claim_p(kind, effects, margin)
        if len(effects) and effects.mean() < -margin * finding.equal:
            p = min(1.0, finding.readings * p)
        note = (finding.note,) if finding.note else ()
        return Evidence(
            finding.ours, kind, effects, margin, p, no_difference_p(kind, effects, margin), False,
            len(self.profile.seeds), note,
        )  # fmt: skip

    # ------------------------------------------------------------ rows

    def verdict(
        self,
        claim: AnyClaim,
        status: tuple[Status, str],
        evidence: Evidence | None,
        ruling: Ruling | None,
        without: Word | None,
        alpha: float,
    ) -> Verdict:
        """The row of a claim; ``alpha`` is the level of Holm's first step."""
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
            "reason": "; ".join(filter(None, (evidence.incomplete, *evidence.note))),
        }  # fmt: skip
        if ruling.word == "inconclusive":
            sd = upper_sd(effects)
            values["seeds_needed"] = seeds_needed(sd, evidence.margin, alpha)
            values["detectable"] = self._amount(claim, detectable(sd, len(effects), alpha))
        if isinstance(claim, CellClaim):
            values |= self._cell_values(claim)
        return Verdict.from_numbers(**values)

    def _amount(self, claim: AnyClaim, effect: float) -> float:
        """An effect's size as it is shown: a difference, or a ratio above 1."""
        if isinstance(claim, CellClaim) and self.claims.metrics[claim.metric].scale == "ratio":
            return float(np.exp(min(effect, LARGEST_LOG)))
        return effect

    def _shown_effect(self, claim: AnyClaim, evidence: Evidence) -> dict[str, Any]:
        """Effect and interval in the units of the table."""
        if isinstance(claim, TheoryClaim):
            effect, low, high, _, kind, _ = mean_interval(evidence.effects)
            return {
                "effect": effect, "low": low, "high": high, "interval": kind,
                "margin": evidence.margin,
            }  # fmt: skip
        scale = self.claims.metrics[claim.metric]
        interval = mean_interval(evidence.effects, bounds=scale.bounds)
        low, high = sorted(map(scale.raw, (interval.low, interval.high)))
        return {
            "unit": _unit(scale), "effect": scale.raw(interval.mean), "low": low, "high": high,
            "interval": interval.kind, "cut": interval.cut, "margin": scale.smallest,
        }  # fmt: skip

    def _theory_values(self, claim: TheoryClaim) -> dict[str, Any]:
        finding = self._finding(claim)
        if finding is None:
            return {}
        holds = {True: "holds", False: "fails", None: None}[finding.holds]
        return {"unit": finding.unit, "ours": finding.ours, "check": holds, "reason": finding.note}

    def _cell_values(self, claim: CellClaim) -> dict[str, Any]:
        """Floors, failures and diagnostics of a claim about two cells."""
        measured = self.measured
        scale = self.claims.metrics[claim.metric]
        values: dict[str, Any] = {}
        floors = self.floors(claim)
        for name, cell, floor in zip("ab", (claim.a, claim.b), floors, strict=True):
            untrained = measured.untrained(claim.experiment, cell)
            values[f"{name}_at_floor"] = floor
            values[f"{name}_diverged"] = sum(measured.diverged(claim.experiment, cell))
            known = [word for word in untrained if word is not None]
            values[f"{name}_untrained"] = sum(known) if known else None
        a, b = self._tasks(claim, scale)
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

    def _tasks(self, claim: CellClaim, scale: Scale) -> tuple[Floats, Floats]:
        """(seeds, tasks) of both cells at the claim's step."""
        measured = self.measured
        if claim.metric == ARRIVAL:
            a, b = (measured.task_arrivals(claim.experiment, cell) for cell in (claim.a, claim.b))
            return a, b
        step = measured.last_step(claim.experiment, claim.step)
        return measured.pair(claim.experiment, claim.a, claim.b, claim.metric, scale, step)

    def _printed(self, claim: AnyClaim) -> str:
        if isinstance(claim, TheoryClaim):
            return "–"
        rows = [
            self.paper.get((*cell[:3], claim.metric)) if cell[3] == "first" else None
            for cell in (claim.a, claim.b)
        ]
        return " vs ".join("–" if row is None else row["printed"] for row in rows)

    def _seconds(self, claim: AnyClaim) -> float:
        if isinstance(claim, TheoryClaim):
            files = self.measured.folder.theory_files()
            return _seconds(path.with_suffix(".json") for path in files)
        runs = {
            Run(claim.experiment, trained_on, method, order, seed)
            for trained_on, _, method, order in (claim.a, claim.b)
            for seed in self.profile.seeds
        }
        return _seconds(self.results / run.folder / "run.json" for run in runs)


def effects_over_steps(
    profile: Profile, results: Path, claims: Claims | None = None
) -> pd.DataFrame:
    """Every claim's effect with its 95 % interval after every step that is measured.

    Returns:
        Columns ``claim``, ``hypothesis``, ``unit``, ``step``, ``effect``, ``low``, ``high`` and
        ``seeds``; effects as differences a − b or ratios a / b. Claims about a first step have
        none, and claims about a lead show the lead itself.
    """
    chosen = claims or load_claims()
    court = _Court(profile, results, chosen)
    rows = []
    for claim in chosen.claims:
        judged = isinstance(claim, CellClaim) and court.status(claim)[0] == "judged"
        if not judged or not isinstance(claim, CellClaim) or claim.metric == ARRIVAL:
            continue
        scale = chosen.metrics[claim.metric]
        for step in court.measured.steps(claim.experiment):
            a, b = court.measured.pair(
                claim.experiment, claim.a, claim.b, claim.metric, scale, step
            )
            leads = scale.lead(a.mean(1), b.mean(1))
            interval = mean_interval(leads[np.isfinite(leads)], bounds=scale.bounds)
            low, high = sorted(map(scale.raw, (interval.low, interval.high)))
            rows.append(
                {
                    "claim": claim.id, "hypothesis": claim.hypothesis, "unit": _unit(scale),
                    "step": step, "effect": scale.raw(interval.mean), "low": low, "high": high,
                    "seeds": interval.n,
                }
            )  # fmt: skip
    columns = ["claim", "hypothesis", "unit", "step", "effect", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def _amount(scale: Scale, leads: Floats) -> str:
    mean = float(leads.mean()) if len(leads) else np.nan
    return f"{100 * mean:.1f} points" if scale.scale == "points" else f"× {scale.raw(mean):.3g}"


def _unit(scale: Scale) -> str:
    return "points" if scale.scale == "points" else "ratio"


def _seconds(manifests: Iterable[Path]) -> float:
    return sum(
        float(read_json(path, seconds=float)["seconds"]) for path in manifests if path.is_file()
    )
