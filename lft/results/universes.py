"""Universes: readings of the paper, drawn from its open questions, each an ordinary profile.

A universe answers every fork of its experiment once, for all methods alike. Settings that any
author would have tuned are drawn a few times for each method, and meta-validation tasks choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lft.config import (
    Experiment,
    Fork,
    Profile,
    Question,
    UniverseSettings,
    explain,
    forks,
    load_questions,
)
from lft.config.questions import choose
from lft.errors import NotApplicable, UsageError, suggestion
from lft.paths import universe_path as universe_path
from lft.seeding import generator, seed_from
from lft.storage.json import read_json

Draw = Mapping[str, float]
"""Settings of one draw: dotted key of the experiment -> value."""

UNIVERSE_COLUMNS = (
    "seed", "method", "order", "trained_on", "tested_on", "status", "metric", "step", "mean",
    "tasks",
)  # fmt: skip
"""One mean over test tasks in a universe. ``method`` is the method that claims name, whichever
method plays its part. ``status`` is ``ok``, ``diverged`` or ``not applicable``; the last two have
one row and no mean."""


@dataclass(frozen=True)
class Universe:
    """One reading of the paper for one experiment.

    Attributes:
        experiment: name of the experiment.
        number: counted from 1.
        levels: fork -> name of its level.
        changes: settings of the levels, with keys as in :class:`lft.config.Fork`.
        seeds: one or two.
    """

    experiment: str
    number: int
    levels: Mapping[str, str]
    changes: Mapping[str, Any]
    seeds: tuple[int, ...]

    def acting(self, method: str) -> str:
        """Return the method that plays the part of a method that claims name."""
        return str(self.changes.get(f"methods.{method}", method))

    @property
    def judged_step(self) -> int | None:
        """The fine-tuning step that claims are judged on; None for the claim's own step."""
        step: int | None = self.changes.get("judged.step")
        return step

    @property
    def judged_set(self) -> str:
        """The set that claims are judged on, ``query`` or ``support``."""
        return str(self.changes.get("judged.set", "query"))


def settings(profile: Profile) -> UniverseSettings:
    """Return the profile's section ``universes``.

    Raises:
        UsageError: there is none.
    """
    if profile.universes is None:
        raise UsageError(
            f"profile {profile.name!r} has no universes; --profile multiverse has, or give it the "
            "section 'universes'"
        )
    return profile.universes


def inputs(profile: Profile, experiment: str) -> dict[str, Any]:
    """Collect every setting that the universes of an experiment depend on, forks included."""
    planned = settings(profile)
    names = set(type(profile).model_fields) - {
        "universes",
        "theory",
        "experiments",
        "title",
        "name",
    }
    return {
        **profile.model_dump(mode="json", include=names),
        "experiment": profile.experiment(experiment).model_dump(mode="json"),
        "forks": [fork.model_dump(mode="json") for fork in forks(load_questions(), experiment)],
        "block": planned.block,
        "twice": planned.twice,
        "draws": planned.tuning.draws,
        "ranges": planned.tuning.ranges.get(experiment),
    }


def names(profile: Profile, *, pilot: bool = False) -> Iterator[tuple[str, int]]:
    """Yield the experiment and number of every universe, or of the pilot's universes only."""
    if profile.universes is not None:
        for experiment, n in profile.universes.experiments.items():
            last = min(n, profile.universes.block) if pilot else n
            yield from ((experiment, number) for number in range(1, last + 1))


def universe(
    profile: Profile, experiment: str, number: int, questions: Sequence[Question] | None = None
) -> Universe:
    """Draw one universe: a level of every fork, by a Latin hypercube.

    Args:
        profile: settings with a section ``universes``.
        experiment: name of the experiment.
        number: counted from 1.
        questions: open questions; those of the package by default.

    Raises:
        UsageError: the profile has no universe of that experiment and number, or fixes for a method
            what a fork varies.
    """
    planned = settings(profile)
    if experiment not in planned.experiments:
        raise UsageError(
            f"there are no universes of {experiment!r}{suggestion(experiment, planned.experiments)}"
        )
    last = planned.experiments[experiment]
    if not 1 <= number <= last:
        raise UsageError(f"universes of {experiment} are numbered 1 to {last}, not {number}")
    block, place = divmod(number - 1, planned.block)
    levels, changes = {}, dict[str, Any]()
    for fork in forks(tuple(questions or load_questions()), experiment):
        quantile = _column(experiment, fork, block, planned.block)[place]
        levels[fork.name], found = fork.at(quantile)
        changes |= found
    _refuse_fixed(profile, experiment, changes)
    first = (number - 1) % len(profile.seeds)
    seeds = [profile.seeds[first]]
    if number <= planned.twice:
        seeds.append(profile.seeds[(first + 1) % len(profile.seeds)])
    return Universe(experiment, number, levels, changes, tuple(seeds))


def _refuse_fixed(profile: Profile, experiment: str, changes: Mapping[str, Any]) -> None:
    ranges = settings(profile).tuning.ranges[experiment]
    for what, methods in (
        ("overrides", profile.experiments[experiment].overrides),
        ("tuning.ranges", ranges),
    ):
        for method, keys in methods.items():
            for key in keys:
                if key in changes:
                    raise UsageError(
                        f"{what} of {method} in {experiment} set {key}, which a fork varies for "
                        "all methods; leave it out, or set it to null where another profile sets it"
                    )


def _column(experiment: str, fork: Fork, block: int, size: int) -> list[float]:
    """Draw one dimension of a Latin hypercube (McKay et al., 1979).

    Returns:
        A quantile for each universe of a block. Every fork has its own random numbers, so that
        adding a fork does not change the others.
    """
    import numpy as np
    from scipy.stats import qmc

    random = np.random.default_rng(seed_from("universes", experiment, fork.name, block))
    column: list[float] = qmc.LatinHypercube(1, rng=random).random(size)[:, 0].tolist()
    return column


def draws(profile: Profile, universe: Universe, method: str) -> list[dict[str, float]]:
    """Draw the settings that a method chooses from in a universe.

    See :func:`lft.results.tuning.random_trials`.
    """
    from lft.results.tuning import random_trials

    tuning = settings(profile).tuning
    random = generator("tuning", universe.experiment, universe.number, method)
    return random_trials(tuning.ranges[universe.experiment][method], tuning.draws, random)


def variant(method: str, draw: int) -> str:
    """Return the name of the variant of a method with one of its draws, counted from 1."""
    return f"{method}-{draw}"


def searched(profile: Profile, universe: Universe) -> Profile:
    """Return the profile of a universe before its methods have chosen: every draw is a variant.

    Raises:
        NotApplicable: the levels contradict each other.
    """
    return _validated(values(profile, universe), universe)


def values(
    profile: Profile, universe: Universe, chosen: Mapping[str, Draw] | None = None
) -> dict[str, Any]:
    """Return the settings of a universe in the form of a profile's file.

    Args:
        profile: the profile of the multiverse.
        universe: one of its universes.
        chosen: each method's draw; without it every draw becomes a variant.

    Raises:
        UsageError: a fork sets a key that the profile does not have.
    """
    name, number = universe.experiment, universe.number
    planned = profile.experiments[name]
    left_out = {"universes", "theory", "experiments"}
    result = profile.model_dump(mode="json", exclude=left_out, exclude_none=True)
    result |= {
        "name": f"{profile.name}-{name}-{number}",
        "title": f"{planned.title}, universe {number} of {profile.name}",
        "seeds": list(universe.seeds),
    }
    experiment = planned.model_dump(mode="json") | {"search": {}, "methods": [], "variants": {}}
    result["experiments"] = {name: experiment}
    experiment["overrides"] = {
        universe.acting(method): dict(changes) for method, changes in planned.overrides.items()
    }
    for method in planned.methods:
        acting = universe.acting(method)
        if chosen is not None:
            experiment["methods"].append(acting)
            experiment["overrides"].setdefault(acting, {}).update(chosen[method])
        else:
            experiment["variants"] |= _variants(profile, universe, method, planned)
    try:
        for dotted, value in universe.changes.items():
            choose(result, experiment, dotted, value)
    except ValueError as error:
        raise UsageError(f"a fork of workflow/reference/open-questions.yaml: {error}") from None
    used = {family.get("source") for family in experiment["families"].values()}
    result["sources"] = {key: result["sources"][key] for key in result["sources"] if key in used}
    return result


def _variants(
    profile: Profile, universe: Universe, method: str, planned: Experiment
) -> dict[str, Any]:
    return {
        variant(method, number): {
            "method": universe.acting(method),
            "label": f"{planned.label(method)}, draw {number}",
            "set": draw,
        }
        for number, draw in enumerate(draws(profile, universe, method), start=1)
    }


def _validated(found: dict[str, Any], universe: Universe) -> Profile:
    try:
        return Profile.model_validate(found)
    except ValidationError as error:
        raise NotApplicable(
            f"universe {universe.number} of {universe.experiment}: {explain(error)}"
        ) from None


def chosen(results: Path, universe: Universe) -> dict[str, dict[str, float]] | None:
    """Read each method's chosen draw; None if the universe was not run under these forks."""
    path = universe_path(results, universe.experiment, universe.number).with_suffix(".json")
    if not path.is_file():
        return None
    found = read_json(path, levels=dict, chosen=dict)
    return found["chosen"] if found["levels"] == universe.levels else None


def as_yaml(profile: Profile, universe: Universe, chosen: Mapping[str, Draw] | None = None) -> str:
    """Format a universe as a profile's file, for ``snakemake`` and ``lft``.

    Args:
        profile: the profile of the multiverse.
        universe: one of its universes.
        chosen: each method's draw, from the manifest of a finished universe.
    """
    head = [f"# Universe {universe.number} of {universe.experiment}, profile {profile.name}:"]
    head += [f"#   {fork}: {level}" for fork, level in universe.levels.items()]
    if universe.judged_step is not None:
        head.append(f"# Claims are judged after {universe.judged_step} steps.")
    if universe.judged_set != "query":
        head.append(f"# Claims are judged on the {universe.judged_set} set.")
    if chosen is None:
        head.append("# Not run yet: every draw is a variant, and meta-validation chooses.")
    text = yaml.safe_dump(
        values(profile, universe, chosen), sort_keys=False, allow_unicode=True, width=100
    )
    return "\n".join(head) + "\n" + text
