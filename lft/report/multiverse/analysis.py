"""From outcomes to the report: shares, the forks that decide them, and the paper's own reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lft.config import Fork, Profile, forks, load_questions
from lft.errors import UsageError
from lft.report.claims.agreement import EXPERIMENTS, FIRST
from lft.report.claims.model import STEP, CellClaim, Claims, load_claims, load_paper
from lft.report.claims.verdict import Verdict
from lft.report.claims.write import read_verdicts
from lft.report.multiverse.forest import Forest, features, forest
from lft.report.multiverse.outcomes import (
    JUDGED,
    Judge,
    Measured,
    Outcome,
    explored,
    measured,
    outcomes,
)
from lft.report.multiverse.shares import Share
from lft.report.multiverse.statistics import (
    Components,
    Estimate,
    Floats,
    Interaction,
    components,
    distances,
    interactions,
    main_effects,
    share,
)
from lft.report.scales import Scale
from lft.results.universes import names
from lft.seeding import seed_from

NEAREST = 10
"""Number of universes that count as near to the paper's numbers."""
SHARED = 0.8
"""Share of the nearest universes that must have a level for it to count as shared."""
READS = {"supported": "for", "contradicted": "against", "negligible": "within",
         "no difference": "within"}  # fmt: skip
"""Verdicts of one run, as outcomes."""


class Reading:
    """All finished universes of a profile, and what follows from them.

    Args:
        profile: settings with a section ``universes``.
        results: the profile's result folder; the reference run lies beside it.
        claims: claims to judge; the paper's by default.
    """

    def __init__(self, profile: Profile, results: Path, claims: Claims | None = None) -> None:
        self.profile, self.results = profile, results
        self.claims = claims or load_claims()
        self.found: list[Measured] = measured(profile, results)
        self.outcomes: list[Outcome] = outcomes(profile, self.found, self.claims)
        self._of_claim: dict[str, list[Outcome]] = {}
        for one in self.outcomes:
            self._of_claim.setdefault(one.claim, []).append(one)

    @property
    def planned(self) -> int:
        """Number of universes in the profile."""
        return sum(1 for _ in names(self.profile))

    @cached_property
    def experiments(self) -> list[str]:
        """Experiments with finished universes."""
        return list(dict.fromkeys(one.universe.experiment for one in self.found))

    def of_experiment(self, experiment: str) -> list[Measured]:
        """Return the finished universes of an experiment."""
        return [one for one in self.found if one.universe.experiment == experiment]

    def explored(self, experiment: str) -> list[CellClaim]:
        """Return the claims that the universes of an experiment can judge."""
        return list(explored(self.profile, self.claims, experiment))

    def of_claim(self, claim: str) -> list[Outcome]:
        """Return a claim's outcomes, one per universe."""
        return self._of_claim.get(claim, [])

    def judged(self, claim: str) -> list[Outcome]:
        """Return a claim's outcomes that are neither vacuous, diverged nor not applicable."""
        return [one for one in self.of_claim(claim) if one.word in JUDGED]

    # ------------------------------------------------------------ shares

    @cached_property
    def shares(self) -> list[Share]:
        """A row for every explored claim."""
        return [self._share(claim) for name in self.experiments for claim in self.explored(name)]

    def _share(self, claim: CellClaim) -> Share:
        every, judged = self.of_claim(claim.id), self.judged(claim.id)
        words = [one.word for one in every]
        counts = {word: float(np.mean([one.word == word for one in judged])) if judged else np.nan
                  for word in JUDGED}  # fmt: skip
        random = np.random.default_rng(seed_from("universes", "bootstrap", claim.id))
        for_it = share([one.word == "for" for one in judged], np.ones(len(judged)), random)
        verdict = self.reference.get(claim.id)
        word = "–" if verdict is None or verdict.verdict is None else verdict.verdict
        majority = next((name for name in JUDGED if counts[name] > 0.5), None)
        agrees = "–"
        if word in READS and majority is not None:
            agrees = "yes" if READS[word] == majority else "no"
        return Share(
            claim.id, claim.experiment, len(every), len(judged),
            counts["for"], counts["against"], counts["within"], for_it.low, for_it.high,
            words.count("vacuous"), words.count("diverged"),
            self.components(claim.id).share_of_seed, word, agrees,
        )  # fmt: skip

    def components(self, claim: str) -> Components:
        """Return the variances of a claim's effect, between seeds and between universes."""
        pairs = [one.effects if len(one.effects) == 2 else (np.nan, np.nan)
                 for one in self.judged(claim)]  # fmt: skip
        return components(np.array(pairs, dtype=float).reshape(-1, 2))

    @cached_property
    def reference(self) -> dict[str, Verdict]:
        """Verdicts of the reference run; empty if there is none."""
        folder = self.results.parent / "reference"
        try:
            return {row.claim: row for row in read_verdicts(folder).claims}
        except UsageError:
            return {}

    # ------------------------------------------------------------ what decides

    def forks(self, experiment: str) -> list[Fork]:
        """Return the forks of an experiment."""
        return forks(load_questions(), experiment)

    def levels(self, experiment: str, numbers: Sequence[int]) -> dict[str, list[str]]:
        """Return the level of every fork in some universes; for a range, its half."""
        of_number = {
            one.universe.number: one.universe.levels for one in self.of_experiment(experiment)
        }
        return {
            fork.name: [fork.group(of_number[number][fork.name]) for number in numbers]
            for fork in self.forks(experiment)
            if all(fork.name in of_number[number] for number in numbers)
        }

    def main_effects(self, claim: CellClaim) -> dict[tuple[str, str], Estimate]:
        """Estimate how each fork's level changes the share of universes in which a claim holds."""
        judged = self.judged(claim.id)
        taken = self.levels(claim.experiment, [one.universe for one in judged])
        return main_effects([one.word == "for" for one in judged], taken)

    def forest(self, claim: CellClaim) -> Forest:
        """Fit a random forest from the forks to a claim's effect."""
        judged = self.judged(claim.id)
        numbers = [one.universe for one in judged]
        taken = self.levels(claim.experiment, numbers)
        random = np.random.default_rng(seed_from("universes", "forest", claim.id))
        return forest(self._effects(judged), features(taken, self._ranges(claim, numbers)), random)

    def _ranges(self, claim: CellClaim, numbers: list[int]) -> dict[str, Floats]:
        of_number = {one.universe.number: one.universe.levels
                     for one in self.of_experiment(claim.experiment)}  # fmt: skip
        found = {}
        for fork in self.forks(claim.experiment):
            if fork.range is not None:
                values = np.array([float(of_number[number][fork.name]) for number in numbers])
                found[fork.name] = np.log(values) if fork.range.log else values
        return found

    def interactions(self, claim: CellClaim) -> list[Interaction]:
        """Find pairs of levels whose joint effect on a claim is not the sum of both."""
        judged = self.judged(claim.id)
        taken = self.levels(claim.experiment, [one.universe for one in judged])
        return interactions(self._effects(judged), taken)

    @staticmethod
    def _effects(judged: Sequence[Outcome]) -> Floats:
        return np.array([one.effect for one in judged], dtype=float)

    def diverged(self, experiment: str) -> dict[str, list[bool]]:
        """Map each method to whether one of its runs diverged, in each universe."""
        found = self.of_experiment(experiment)
        return {
            method: [
                any(word == "diverged" for cell, word in one.status.items() if cell[1] == method)
                for one in found
            ]
            for method in self.profile.experiment(experiment).methods
        }

    def makes_diverge(self, experiment: str, method: str) -> dict[tuple[str, str], Estimate]:
        """Estimate how each fork's level changes the share of universes where a method diverges."""
        numbers = [one.universe.number for one in self.of_experiment(experiment)]
        return main_effects(self.diverged(experiment)[method], self.levels(experiment, numbers))

    # ------------------------------------------------------------ the paper's reading

    def distances(self, experiment: str) -> dict[int, float]:
        """Map each universe to its distance from the paper's printed numbers, nearest first.

        It is empty if no table has numbers that the universes compute.
        """
        printed = list(self._printed(experiment))
        if not printed:
            return {}
        found = self.of_experiment(experiment)
        table = np.array([[self._value(one, cell, metric) for cell, metric, _ in printed]
                          for one in found])  # fmt: skip
        far = distances(table, np.array([value for *_, value in printed]))
        pairs = zip((one.universe.number for one in found), far.tolist(), strict=True)
        return dict(sorted((p for p in pairs if np.isfinite(p[1])), key=lambda pair: pair[1]))

    def _printed(self, experiment: str) -> Iterator[tuple[tuple[str, str, str, Any], str, float]]:
        planned = self.profile.experiment(experiment)
        for (trained_on, tested_on, method, metric), row in load_paper().items():
            same = EXPERIMENTS[row["table"]] == experiment
            computed = (
                trained_on in planned.train_on
                and tested_on in planned.test_on
                and method in planned.methods
            )
            if same and computed:
                yield (trained_on, tested_on, method, FIRST), metric, float(row["value"])

    def _value(self, one: Measured, cell: tuple[str, str, str, Any], metric: str) -> float:
        step = self.profile.experiment(one.universe.experiment).testing.written(
            one.universe.judged_step or STEP
        )
        judge = Judge(self.profile, one, self.claims)
        values = [judge.value(cell, metric, seed, step) for seed in one.universe.seeds]
        return float(np.mean(values))

    def shared(self, experiment: str) -> list[tuple[str, str, int, float]]:
        """Return what the nearest universes share.

        Returns:
            Fork, level, number of the nearest universes with that level, and the level's weight.
        """
        nearest = list(self.distances(experiment))[:NEAREST]
        by_name = {fork.name: fork for fork in self.forks(experiment)}
        rows = []
        for fork, taken in self.levels(experiment, nearest).items():
            for level in dict.fromkeys(taken):
                if taken.count(level) >= SHARED * len(nearest):
                    weight = by_name[fork].groups[level]
                    rows.append((fork, level, taken.count(level), weight))
        return rows

    # ------------------------------------------------------------ where others lie

    def marks(self, claim: CellClaim) -> dict[str, float]:
        """Locate the reference run and the paper's printed numbers on a claim's curve."""
        scale, found = self.claims.metrics[claim.metric], {}
        verdict = self.reference.get(claim.id)
        if verdict is not None and verdict.effect is not None and claim.kind != "wider":
            found["reference"] = on_scale(scale, verdict.effect)
        rows = [load_paper().get((*cell[:3], claim.metric)) for cell in (claim.a, claim.b)]
        if all(rows) and claim.kind != "wider" and {claim.a[3], claim.b[3]} == {FIRST}:
            a, b = (np.array(float(row["value"])) for row in rows if row)
            found["paper"] = float(scale.lead(a, b))
        return found

    def table(self) -> pd.DataFrame:
        """Return every outcome."""
        rows = [(o.experiment, o.universe, o.claim, o.word, o.effect, len(o.effects))
                for o in self.outcomes]  # fmt: skip
        return pd.DataFrame(
            rows, columns=["experiment", "universe", "claim", "outcome", "effect", "seeds"]
        )


def on_scale(scale: Scale, effect: float) -> float:
    """Convert a difference or ratio to a lead; the inverse of :meth:`Scale.raw`."""
    return scale.sign * (effect if scale.scale == "points" else float(np.log(effect)))
