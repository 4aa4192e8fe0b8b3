"""The outcome of every claim in every universe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from lft.config import Experiment, Profile
from lft.errors import UsageError
from lft.metrics import SUPPORT
from lft.paths import universe_path
from lft.report.claims.decision import is_vacuous
from lft.report.claims.model import CellClaim, Claims
from lft.report.effects import CellName
from lft.report.scales import ARRIVAL, Scale, first_full
from lft.results.universes import UNIVERSE_COLUMNS, Universe, names, universe
from lft.storage.csv import read_rows
from lft.storage.json import read_json

Word = Literal["for", "against", "within", "vacuous", "diverged", "not applicable"]
JUDGED: tuple[Word, ...] = ("for", "against", "within")
"""Outcomes that decide a claim."""


class Outcome(NamedTuple):
    """Outcome of one claim in one universe.

    Attributes:
        effects: of each seed, on the metric's scale, positive on the claim's side; empty if there
            are none.
        word: ``within`` the smallest effect of interest; ``vacuous`` by the floor rule of claims,
            where a method is at its floor if it is not ahead of it by as much; ``diverged`` if a
            method diverged.
    """

    experiment: str
    universe: int
    claim: str
    effects: tuple[float, ...]
    word: Word

    @property
    def effect(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.effects)) if self.effects else np.nan


@dataclass(frozen=True)
class Measured:
    """The measurements of a finished universe.

    Attributes:
        means: (seed, method, order, trained on, tested on, metric) -> step -> mean over test tasks.
        status: (seed, method, order, trained on, tested on) -> status.
        reasons: from the universe's manifest.
    """

    universe: Universe
    means: dict[tuple[Any, ...], dict[int, float]]
    status: dict[tuple[Any, ...], str]
    reasons: dict[str, str]


def measured(profile: Profile, results: Path) -> list[Measured]:
    """Read every finished universe.

    Raises:
        UsageError: there is none, or a file is damaged or was made under other forks.
    """
    found = []
    for experiment, number in names(profile):
        path = universe_path(results, experiment, number)
        if path.is_file():
            found.append(_read(path, universe(profile, experiment, number)))
    if not found:
        raise UsageError(
            f"no universe of {profile.name!r} has been run in {results}; run snakemake universes "
            "first"
        )
    return found


def _read(path: Path, planned: Universe) -> Measured:
    beside = path.with_suffix(".json")
    said = read_json(beside, levels=dict, reasons=dict)
    if said["levels"] != planned.levels:
        raise UsageError(
            f"{beside} took other levels than the open questions give now; restore them, or delete "
            "the file and run the universe again"
        )
    means: dict[tuple[Any, ...], dict[int, float]] = {}
    status: dict[tuple[Any, ...], str] = {}
    for row in cast(Iterator[Any], read_rows(path, UNIVERSE_COLUMNS).itertuples(index=False)):
        cell = (row.seed, row.method, row.order, row.trained_on, row.tested_on)
        status[cell] = str(row.status)
        if row.status == "ok":
            means.setdefault((*cell, row.metric), {})[row.step] = row.mean
    return Measured(planned, means, status, said["reasons"])


def outcomes(profile: Profile, found: Sequence[Measured], claims: Claims) -> list[Outcome]:
    """Return every universe's outcome for every claim whose cells it measured."""
    return [
        outcome
        for one in found
        for claim in explored(profile, claims, one.universe.experiment)
        if (outcome := Judge(profile, one, claims).outcome(claim)) is not None
    ]


def explored(profile: Profile, claims: Claims, experiment: str) -> Iterator[CellClaim]:
    """Yield the claims whose cells the universes of an experiment compute."""
    planned = profile.experiment(experiment)
    for claim in claims.claims:
        if isinstance(claim, CellClaim) and claim.experiment == experiment:
            cells = (claim.a, claim.b)
            if all(
                trained_on in planned.train_on
                and tested_on in planned.test_on
                and method in planned.methods
                and order in planned.orders
                for trained_on, tested_on, method, order in cells
            ):
                yield claim


class Judge:
    """Judges claims in one universe.

    Args:
        profile: the profile of the multiverse.
        found: the universe.
        claims: for the scales of the metrics.
    """

    def __init__(self, profile: Profile, found: Measured, claims: Claims) -> None:
        self.found, self.claims = found, claims
        self.planned: Experiment = profile.experiment(found.universe.experiment)

    def outcome(self, claim: CellClaim) -> Outcome | None:
        """Judge a claim; None if a cell of it was not measured."""
        universe = self.found.universe
        named = (universe.experiment, universe.number, claim.id)
        words = {self._status(seed, cell) for seed in universe.seeds for cell in (claim.a, claim.b)}
        # Its levels contradict each other.
        if set(self.found.status.values()) == {"not applicable"}:
            words = {"not applicable"}
        for word in ("not applicable", "diverged"):
            if word in words:
                return Outcome(*named, (), word)
        if not all(self._curve(*place) for place in self._curves(claim)):
            return None
        scale = self.claims.metrics[claim.metric]
        effects = tuple(self._effect(claim, scale, seed) for seed in universe.seeds)
        if not np.isfinite(effects).all():
            return Outcome(*named, (), "diverged")
        at_floor = [self.at_floor(cell, claim) for cell in (claim.a, claim.b)]
        if is_vacuous(claim.kind, scale, at_floor):
            return Outcome(*named, effects, "vacuous")
        return Outcome(*named, effects, _word(claim.kind, float(np.mean(effects)), scale.margin))

    def _curves(self, claim: CellClaim) -> Iterator[tuple[CellName, str, int]]:
        """Yield cell, metric and seed of every curve that a claim looks at."""
        metric = "asr" if claim.metric == ARRIVAL else claim.metric
        for cell in (claim.a, claim.b):
            yield from ((cell, metric, seed) for seed in self.found.universe.seeds)

    def _status(self, seed: int, cell: CellName) -> str:
        trained_on, tested_on, method, order = cell
        return self.found.status.get((seed, method, order, trained_on, tested_on), "missing")

    # ------------------------------------------------------------ effects

    def _effect(self, claim: CellClaim, scale: Scale, seed: int) -> float:
        """Return the lead of a over b; for ``wider``, the largest earlier lead minus the last."""
        last = self._last(claim)
        if claim.kind != "wider":
            return self._lead(claim, scale, seed, last)
        steps = [step for step in self._curve(claim.a, claim.metric, seed) if 0 < step < last]
        leads = [self._lead(claim, scale, seed, step) for step in steps]
        return max(leads) - self._lead(claim, scale, seed, last) if leads else np.nan

    def _lead(self, claim: CellClaim, scale: Scale, seed: int, step: int) -> float:
        a, b = (self.value(cell, claim.metric, seed, step) for cell in (claim.a, claim.b))
        return float(scale.lead(np.array(a), np.array(b)))

    def _last(self, claim: CellClaim) -> int:
        wanted = self.found.universe.judged_step or claim.step
        return self.planned.testing.written(wanted)

    def value(self, cell: CellName, metric: str, seed: int, step: int) -> float:
        """Return a mean over test tasks after a step, or a first step; NaN if there is none."""
        if metric == ARRIVAL:
            return self._arrival(cell, seed)
        return self._curve(cell, metric, seed).get(step, np.nan)

    def _arrival(self, cell: CellName, seed: int) -> float:
        """Return the first step with a mean ASR of 100 %; one more than the last if it never is."""
        curve = sorted(self._curve(cell, "asr", seed).items())
        if not curve:
            return np.nan
        steps, means = zip(*curve, strict=True)
        return min(float(first_full(np.array(means), steps)), self._never)

    @property
    def _never(self) -> int:
        return self.planned.testing.steps + 1

    def _curve(self, cell: CellName, metric: str, seed: int) -> dict[int, float]:
        trained_on, tested_on, method, order = cell
        if self.found.universe.judged_set == "support" and metric == self.planned.primary:
            metric += SUPPORT
        key = (seed, method, order, trained_on, tested_on, metric)
        return self.found.means.get(key, {})

    # ------------------------------------------------------------ floors

    def at_floor(self, cell: CellName, claim: CellClaim) -> bool | None:
        """Return whether a cell is not ahead of its floor by the smallest effect of interest.

        See :attr:`lft.report.effects.Scale.floor`. It is None if the floor is unknown.
        """
        scale, metric = self.claims.metrics[claim.metric], claim.metric
        if scale.floor == "asr":
            scale, metric = self.claims.metrics["asr"], "asr"
        step = self._last(claim)
        leads = [
            scale.lead(
                np.array(self.value(cell, metric, seed, step)),
                np.array(self._floor(cell, metric, scale, seed)),
            )
            for seed in self.found.universe.seeds
        ]
        lead = float(np.mean(leads))
        return None if np.isnan(lead) else lead <= scale.margin

    def _floor(self, cell: CellName, metric: str, scale: Scale, seed: int) -> float:
        """Return the metric of having learned nothing; NaN if unknown."""
        if scale.floor == "never":
            return self._never
        start = self._start(cell, metric, seed)
        if scale.floor == "chance":
            families = (self.planned.families[name] for name in cell[1].split("+"))
            return max(start, float(np.mean([family.chance or 0.0 for family in families])))
        return start

    def _start(self, cell: CellName, metric: str, seed: int) -> float:
        """Return the random start's mean on the tasks that a cell is tested on; NaN if unknown."""
        _, tested_on, _, order = cell
        for trained_on in self.planned.train_on:
            for method in self.planned.methods:
                if not self.planned.base_method(method).learns_initialisation:
                    curve = self._curve((trained_on, tested_on, method, order), metric, seed)
                    if 0 in curve:
                        return curve[0]
        return np.nan


def _word(kind: str, effect: float, margin: float) -> Word:
    if kind == "equivalent":
        return "for" if abs(effect) < margin else "against"
    if kind == "not-worse":
        return "for" if effect > -margin else "against"
    return "for" if effect > margin else "against" if effect < -margin else "within"
