"""Compare learned methods with SGD and Adam, hand-designed rules that the paper lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lft.config import Profile
from lft.metrics import SUPPORT, metric_of
from lft.report.claims.judge import judge
from lft.report.claims.model import STEP, CellClaim, Claims, load_claims
from lft.report.claims.verdict import Verdict

WORDS = {
    "supported": "ahead",
    "contradicted": "behind",
    "negligible": "no difference that matters",
    "no difference": "no difference",
    "inconclusive": "undecided",
    "vacuous": "neither has learned",
}
"""Words for a verdict on a learned method beside a hand-designed rule."""


def against_baselines(profile: Profile, results: Path) -> list[Verdict]:
    """Judge every learned method against every hand-designed rule in the same cell.

    The step is that of the paper's tables. Verdicts follow the rules for claims, Holm-adjusted over
    these comparisons.
    """
    return _judged(profile, results, tuple(_comparisons(profile)))


def worth_it(profile: Profile, results: Path, beside: Sequence[Verdict]) -> dict[str, Verdict]:
    """Judge every learned method against every hand-designed rule on its own objective.

    These are tasks of the method's training mixture, and the data that its outer loop saw. For
    methods that see query sets in meta-training, the verdicts are those of
    :func:`against_baselines`. The others are judged by the primary metric on the support set,
    Holm-adjusted over these comparisons.

    Args:
        profile: settings.
        results: the profile's result folder.
        beside: result of :func:`against_baselines`.

    Returns:
        Verdicts by ``experiment:trained_on:tested_on:method:order:rule``.
    """
    own = {row.claim: row for row in beside if _is_own(row.claim)}
    blind = tuple(
        claim.model_copy(update={"metric": claim.metric + SUPPORT})
        for claim in _comparisons(profile)
        if _is_own(claim.id)
        and profile.experiments[claim.experiment].base_method(claim.a[2]).outer != "query"
    )
    return own | {row.claim: row for row in _judged(profile, results, blind)}


def behind(profile: Profile, results: Path) -> dict[tuple[str, ...], str]:
    """Find the cells in which a learned method has been shown to be worse than a rule.

    Returns:
        Experiment, mixtures, method and order -> a sentence.
    """
    rules: dict[tuple[str, ...], list[str]] = {}
    for row in against_baselines(profile, results):
        *cell, rule = row.claim.split(":")
        if row.verdict == "contradicted":
            rules.setdefault(tuple(cell), []).append(rule)
    return {cell: _sentence(profile, cell, found) for cell, found in rules.items()}


def _sentence(profile: Profile, cell: tuple[str, ...], rules: list[str]) -> str:
    experiment = profile.experiments[cell[0]]
    names = " and ".join(experiment.label(rule) for rule in rules)
    return f"{experiment.label(cell[3])} is behind {names} on {metric_of(experiment.primary).label}"


def _is_own(name: str) -> bool:
    _, trained_on, tested_on, *_ = name.split(":")
    return trained_on == tested_on


def _judged(profile: Profile, results: Path, comparisons: tuple[CellClaim, ...]) -> list[Verdict]:
    if not comparisons:
        return []
    registered = load_claims()
    primary = {experiment.primary for experiment in profile.experiments.values()}
    claims = Claims(
        version=registered.version,
        date=registered.date,
        # Always the same metrics, so that the measurements are read once.
        metrics={
            name: scale
            for metric, scale in registered.metrics.items()
            if metric in primary | {"asr"}
            for name in (metric, metric + SUPPORT)
        },
        hypotheses={"baselines": "A learned method is better than a hand-designed one"},
        claims=comparisons,
    )
    return judge(profile, results, claims, diagnostics=False)


def _comparisons(profile: Profile) -> Iterator[CellClaim]:
    metrics = load_claims().metrics
    for run, tested_on, refusal in profile.cells():
        experiment = profile.experiments[run.experiment]
        method = experiment.base_method(run.method)
        first = run.seed == profile.seeds[0] and run.method in experiment.methods
        if refusal or not first or method.learns == "step_size":
            continue
        if experiment.primary not in metrics:
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
