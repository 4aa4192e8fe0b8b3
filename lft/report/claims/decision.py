"""From the effects of the seeds to a verdict, by pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lft.report.claims.verdict import Word
from lft.report.scales import Scale
from lft.report.statistics import (
    ALPHA,
    Floats,
    beyond_p,
    equivalence_p,
    holm,
    largest_mean_p,
    two_sided_p,
)


@dataclass(frozen=True)
class Evidence:
    """The seeds' evidence on one claim.

    Attributes:
        ours: both numbers, as text.
        kind: kind of the claim in claims.yaml.
        effects: (seeds,) leads of a over b on the metric's scale, positive on the claim's side.
        margin: smallest effect of interest on that scale.
        p: p of the claim's own test, two-sided and not yet adjusted.
        equivalence: p of the two one-sided tests; NaN if the claim itself is one of equality.
        vacuous: whether the floor rule applies.
        n_planned: number of seeds in the profile.
        note: further remarks.
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
        """Why there is no verdict yet; empty if there is one."""
        n = len(self.effects)
        return "" if 1 < n == self.n_planned else f"n = {n}/{self.n_planned} seeds"


class Ruling(NamedTuple):
    """A verdict with the adjusted p-values.

    Attributes:
        word: the verdict.
        p: of the claim's own test.
        equivalence: of the two one-sided tests.
    """

    word: Word
    p: float
    equivalence: float


def decide_all(found: Sequence[Evidence | None], tests: Sequence[bool]) -> list[Ruling | None]:
    """Decide a family of claims.

    Args:
        found: evidence on each claim; None if there is nothing to judge.
        tests: whether each claim counts in the adjustments.
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
    """Decide one claim from adjusted p-values.

    See :func:`lft.report.claims.judge.judge` for the order of the rules.
    """
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
        if equivalence_p(effects, margin) < ALPHA:  # the 90 % interval lies within the margin
            return "negligible"
        return "supported" if mean > 0 else "contradicted"
    return "no difference" if equivalence < ALPHA else "inconclusive"


def is_vacuous(kind: str, scale: Scale, at_floor: Sequence[bool | None]) -> bool:
    """Apply the floor rule: both cells at the floor or, for equality and distortion, either.

    Args:
        kind: kind of the claim.
        scale: scale of its metric.
        at_floor: whether each cell is at its floor; None if unknown.
    """
    either = kind in ("equivalent", "not-worse") or scale.floor == "asr"
    return (any if either else all)(floor is True for floor in at_floor)


def claim_p(kind: str, effects: Floats, margin: float) -> float:
    """Return the two-sided p of a claim's own test.

    Non-inferiority is tested against −margin instead of 0. Equivalence is tested by two one-sided
    tests if the mean lies within ± margin, and otherwise by a test that it lies beyond.

    Args:
        kind: kind of the claim.
        effects: (seeds,).
        margin: smallest effect of interest.
    """
    if kind == "not-worse":
        return two_sided_p(effects, -margin)
    if kind == "equivalent":
        within = len(effects) > 0 and abs(effects.mean()) < margin
        return equivalence_p(effects, margin) if within else beyond_p(effects, margin)
    return two_sided_p(effects)


def no_difference_p(kind: str, effects: Floats, margin: float) -> float:
    """Return the p of "no difference"; NaN for claims of equality, whose own test asks for it."""
    return np.nan if kind in ("equivalent", "not-worse") else equivalence_p(effects, margin)


def wider(
    leads: Floats, margin: float, random: np.random.Generator
) -> tuple[int, Floats, float, float]:
    """Test whether the largest lead before the last step exceeds the last lead.

    A claim is supported only if there is a lead before the last step, since being behind by less is
    no lead. The rotation tests of the largest excess and of the largest lead must both be
    significant, so that choosing a step costs nothing. It is contradicted only if the leads at all
    earlier steps are smaller than the last, and there is no difference only if none of them
    differs. Both are unknown if the excess at a step has no spread, for which there is no t test.

    Args:
        leads: (seeds, steps), the last step in the last column.
        margin: smallest effect of interest.
        random: source of the rotations.

    Returns:
        The column of the clearest excess (largest t), the excesses over the last lead there
        (seeds,), the two-sided p and the p of no difference; NaN if unknown.
    """
    excess = leads[:, :-1] - leads[:, -1:]
    column, above = largest_mean_p(excess, random)
    chosen = excess[:, column]
    if excess.size == 0 or np.isnan(above):
        return column, chosen, np.nan, np.nan
    if chosen.mean() > 0:
        _, ahead = largest_mean_p(leads[:, :-1], random)
        p = 2 * np.max([above, ahead])
    else:
        p = np.max([two_sided_p(of_step) for of_step in excess.T])
    same = np.max([equivalence_p(of_step, margin) for of_step in excess.T])
    return column, chosen, float(np.minimum(1.0, p)), float(same)
