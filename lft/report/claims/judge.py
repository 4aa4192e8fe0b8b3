"""Verdicts: test every claim over seeds.

:func:`lft.report.claims.decision.decide` has the rules.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lft.config import Profile
from lft.report.claims.decision import decide_all
from lft.report.claims.evidence import Court
from lft.report.claims.model import CellClaim, Claims, load_claims, load_paper
from lft.report.claims.rows import Rows, unit_of
from lft.report.claims.verdict import Verdict
from lft.report.scales import ARRIVAL
from lft.report.statistics import ALPHA, mean_interval


def judge(
    profile: Profile, results: Path, claims: Claims | None = None, *, diagnostics: bool = True
) -> list[Verdict]:
    """Test claims on a result folder and give the verdicts.

    The unit is the seed. Each seed gives one number: the mean over test tasks of one cell minus
    that of another, or the logarithm of their ratio. The claim is about the mean of these numbers.
    In this order a claim is

    - ``vacuous`` if both methods (either, for a claim of equality or distortion) are not shown to
      be better than having learned nothing, by a one-sided t test at 5 %; for distortion by the
      ASR;
    - ``negligible`` if p < 0.05, but the 90 % interval lies within ± the smallest effect of
      interest;
    - ``supported`` or ``contradicted`` if p < 0.05, by the side;
    - ``no difference`` if two one-sided tests place it within ± the smallest effect of interest;
    - ``inconclusive`` otherwise.

    p is from a two-sided t test over seeds, Holm-adjusted over all empirical claims that the
    profile plans. The equivalence tests are adjusted separately. Every verdict is also computed
    without the seeds in which a run diverged or was not trained.

    Args:
        profile: settings.
        results: the profile's result folder.
        claims: claims to judge; the paper's by default.
        diagnostics: whether to compute bootstrap intervals.
    """
    chosen = claims or load_claims()
    court = Court(profile, results, chosen)
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
    rows = Rows(court, load_paper(), diagnostics)
    return [rows.verdict(*row, ALPHA / max(1, sum(tests))) for row in judged]


def effects_over_steps(
    profile: Profile, results: Path, claims: Claims | None = None
) -> pd.DataFrame:
    """Return every claim's effect with its 95 % interval after every measured step.

    Returns:
        Columns ``claim``, ``hypothesis``, ``unit``, ``step``, ``effect``, ``low``, ``high`` and
        ``seeds``; effects are differences a − b or ratios a / b. Claims about a first step have no
        rows, and claims about a lead show the lead itself.
    """
    chosen = claims or load_claims()
    court = Court(profile, results, chosen)
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
                    "claim": claim.id, "hypothesis": claim.hypothesis, "unit": unit_of(scale),
                    "step": step, "effect": scale.raw(interval.mean), "low": low, "high": high,
                    "seeds": interval.n,
                }
            )  # fmt: skip
    columns = ["claim", "hypothesis", "unit", "step", "effect", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)
