"""Learned methods beside the hand-designed rules that the paper does not have: SGD and Adam."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lft.config import Profile
from lft.report.claims.judge import judge
from lft.report.claims.model import CellClaim, Claims, load_claims
from lft.report.claims.verdict import Verdict

STEP = 100
WORDS = {
    "supported": "ahead",
    "contradicted": "behind",
    "negligible": "no difference that matters",
    "no difference": "no difference",
    "inconclusive": "undecided",
    "vacuous": "neither has learned",
}
"""What a verdict says about a learned method beside a hand-designed one."""


def against_baselines(profile: Profile, results: Path) -> list[Verdict]:
    """Every learned method against every hand-designed rule in the same cell, after as many steps
    as the paper's tables; judged as the claims are, Holm-adjusted among themselves."""
    registered = load_claims()
    claims = Claims(
        version=registered.version,
        date=registered.date,
        metrics=registered.metrics,
        hypotheses={"baselines": "A learned method is better than a hand-designed one"},
        claims=tuple(_comparisons(profile, registered)),
    )
    return judge(profile, results, claims, diagnostics=False) if claims.claims else []


def _comparisons(profile: Profile, registered: Claims) -> Iterator[CellClaim]:
    for run, tested_on, refusal in profile.cells():
        experiment = profile.experiments[run.experiment]
        method = experiment.base_method(run.method)
        first = run.seed == profile.seeds[0] and run.method in experiment.methods
        if refusal or not first or method.learns == "step_size":
            continue
        if experiment.primary not in registered.metrics:
            continue
        for rule in experiment.methods:
            if experiment.base_method(rule).learns != "step_size":
                continue
            yield CellClaim(
                id=":".join(
                    (run.experiment, run.trained_on, tested_on, run.method, run.order, rule)
                ),
                claim=f"{experiment.label(run.method)} is better than {experiment.label(rule)}",
                place="–",
                hypothesis="baselines",
                figure="baselines",
                kind="better",
                experiment=run.experiment,
                metric=experiment.primary,
                a=(run.trained_on, tested_on, run.method, run.order),
                b=(run.trained_on, tested_on, rule, run.order),
                step=STEP,
            )
