"""Collect the evidence on a claim from a result folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lft.config import Profile
from lft.metrics import metric_of
from lft.report import theory_tests
from lft.report.claims.decision import Evidence, claim_p, is_vacuous, no_difference_p, wider
from lft.report.claims.model import CellClaim, Claims, TheoryClaim
from lft.report.claims.verdict import Status
from lft.report.effects import CellName, Measured
from lft.report.scales import ARRIVAL, Scale
from lft.report.statistics import Finding, Floats, restricted_mean, share_arrived
from lft.seeding import seed_from

AnyClaim = CellClaim | TheoryClaim


class Court:
    """Everything that the verdicts on one result folder need, read once.

    Args:
        profile: settings.
        results: the profile's result folder.
        claims: claims to judge.
    """

    def __init__(self, profile: Profile, results: Path, claims: Claims) -> None:
        self.profile, self.results, self.claims = profile, results, claims
        self.measured = Measured(profile, results, sorted(claims.metrics))
        self.theory = self.measured.folder.theory
        self._findings: dict[str, Finding | None] = {}

    # ------------------------------------------------------------ what there is

    def status(self, claim: AnyClaim) -> tuple[Status, str]:
        """Return whether a claim can be judged, and if not, why."""
        if self.profile.fitted is not None:
            return "not in this profile", f"settings were fitted to {self.profile.fitted}"
        if isinstance(claim, TheoryClaim):
            if not self.profile.theory_experiments:
                return "not in this profile", "the profile measures no theory"
            if self.finding(claim) is None:
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
        """Return whether a run behind the claim diverged or was not trained."""
        return isinstance(claim, CellClaim) and bool(self._failures(claim).any())

    def _failures(self, claim: CellClaim) -> np.ndarray:
        """Return, for each seed, whether a run of either cell failed, (seeds,)."""
        failed = np.zeros(len(self.profile.seeds), dtype=bool)
        for cell in (claim.a, claim.b):
            failed |= np.array(self.measured.diverged(claim.experiment, cell))
            untrained = self.measured.untrained(claim.experiment, cell)
            failed |= np.array([bool(word) for word in untrained])
        return failed

    # ------------------------------------------------------------ evidence

    def evidence(self, claim: AnyClaim, *, sound: bool = False) -> Evidence | None:
        """Collect the evidence of the seeds; None if there is nothing to judge.

        Args:
            claim: the claim.
            sound: whether to leave out seeds in which a run failed.
        """
        if isinstance(claim, TheoryClaim):
            return self._of_theory(claim)
        keep = np.ones(len(self.profile.seeds), dtype=bool)
        if sound:
            keep = ~self._failures(claim)
        scale = self.claims.metrics[claim.metric]
        leads, ours, note = self._leads(claim, scale)
        known = keep & np.isfinite(leads).all(1)
        effects = leads[:, -1][known]
        p = claim_p(claim.kind, effects, scale.margin)
        same = no_difference_p(claim.kind, effects, scale.margin)
        if claim.kind == "wider":
            random = np.random.default_rng(seed_from("rotations", claim.id))
            column, effects, p, same = wider(leads[known], scale.margin, random)
            step = self._steps(claim)[column]
            lead = _amount(scale, leads[known][:, column])
            note = (*note, f"clearest excess over the last lead, at step {step}: a lead of {lead}")
        vacuous = is_vacuous(claim.kind, scale, self.floors(claim))
        return Evidence(
            ours, claim.kind, effects, scale.margin, p, same, vacuous, int(keep.sum()), note,
        )  # fmt: skip

    def _steps(self, claim: CellClaim) -> list[int]:
        """Return the steps that a claim looks at, the last one last."""
        last = self.measured.last_step(claim.experiment, claim.step)
        if claim.kind != "wider":
            return [last]
        return [step for step in self.measured.steps(claim.experiment) if 0 < step <= last]

    def _leads(self, claim: CellClaim, scale: Scale) -> tuple[Floats, str, tuple[str, ...]]:
        """Return the leads (seeds, steps) up to the claim's step, both means as text, and notes."""
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
        notes = [f"after {last} steps"] if last != claim.step else []
        if scale.floor == "asr":
            notes += self._unequal_success(claim, last)
        return scale.lead(a, b), ours, tuple(notes)

    def _unequal_success(self, claim: CellClaim, step: int) -> Iterable[str]:
        """Note that the perturbations of two attacks are compared at unequal success."""
        scale = self.claims.metrics["asr"]
        pair = self.measured.pair(claim.experiment, claim.a, claim.b, "asr", scale, step)
        a, b = (scale.centre(values.mean(1)) for values in pair)
        if abs(a - b) >= scale.margin:
            shown = metric_of("asr").shown
            yield f"compared at unequal success: ASR {shown(a)} vs {shown(b)}"

    def _arrival_text(self, experiment: str, arrivals: Floats) -> str:
        last = self.profile.experiments[experiment].testing.steps
        known = arrivals[np.isfinite(arrivals)]
        arrived = known[known <= last]
        if len(arrived) == 0:
            return "never"
        late = f" ({len(known) - len(arrived)} of {len(known)} seeds never)"
        return f"{arrived.mean():.0f}" + late * (len(arrived) < len(known))

    def _arrival_notes(self, claim: CellClaim) -> Iterable[str]:
        """Note if no mean curve arrives, and the share and restricted mean of tasks that do."""
        horizon = self.profile.experiments[claim.experiment].testing.steps
        cells = (claim.a, claim.b)
        if all((self.measured.arrivals(claim.experiment, cell) > horizon).all() for cell in cells):
            yield "no seed's mean curve reaches 100 %; this says nothing of single tasks"
        if not self.measured.has_tasks:
            return
        for cell in cells:
            first = self.measured.task_arrivals(claim.experiment, cell)
            yield (
                f"{cell[2]}: {share_arrived(first):.0%} of tasks arrive, restricted mean "
                f"{restricted_mean(np.where(np.isinf(first), np.nan, first), horizon):.0f} steps"
            )

    def floors(self, claim: CellClaim) -> tuple[bool | None, bool | None]:
        """Return whether each cell is at its floor."""
        scale, asr = self.claims.metrics[claim.metric], self.claims.metrics["asr"]
        step = self.measured.last_step(claim.experiment, claim.step)
        a, b = (
            self.measured.at_floor(claim.experiment, cell, claim.metric, scale, asr, step)
            for cell in (claim.a, claim.b)
        )
        return a, b

    def finding(self, claim: TheoryClaim) -> Finding | None:
        """Return the finding of a statement's test; None if the theory was not measured."""
        if claim.test not in self._findings:
            self._findings[claim.test] = theory_tests.TESTS[claim.test](self.theory)
        return self._findings[claim.test]

    def _of_theory(self, claim: TheoryClaim) -> Evidence | None:
        finding = self.finding(claim)
        if finding is None or claim.kind == "check":
            return None
        effects, margin = np.array(finding.effects, dtype=float), finding.smallest
        kind = "not-worse" if finding.equal else "better"
        p = claim_p(kind, effects, margin)
        if len(effects) and effects.mean() < -margin * finding.equal:
            p = float(np.minimum(1.0, finding.readings * p))  # an unknown p stays NaN
        note = (finding.note,) if finding.note else ()
        return Evidence(
            finding.ours, kind, effects, margin, p, no_difference_p(kind, effects, margin), False,
            len(self.profile.seeds), note,
        )  # fmt: skip

    def tasks(self, claim: CellClaim, scale: Scale) -> tuple[Floats, Floats]:
        """Return the metric of both cells at the claim's step, each (seeds, tasks)."""
        measured = self.measured
        if claim.metric == ARRIVAL:
            a, b = (measured.task_arrivals(claim.experiment, cell) for cell in (claim.a, claim.b))
            return a, b
        step = measured.last_step(claim.experiment, claim.step)
        return measured.pair(claim.experiment, claim.a, claim.b, claim.metric, scale, step)


def _amount(scale: Scale, leads: Floats) -> str:
    mean = float(leads.mean()) if len(leads) else np.nan
    return f"{100 * mean:.1f} points" if scale.scale == "points" else f"× {scale.raw(mean):.3g}"
