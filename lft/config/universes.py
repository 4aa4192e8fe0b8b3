"""The section ``universes`` of a profile: number of readings of the paper, and their tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from lft.config.base import Name, Positive, Settings
from lft.config.experiment import Experiment
from lft.errors import suggestion

Bounds = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Tuning(Settings):
    """Tuning that any author would have done: every method gets the best of a few draws."""

    draws: Positive  #: draws per method; meta-validation tasks choose the best
    #: experiment -> method -> dotted key of the experiment -> smallest and largest value
    ranges: dict[Name, dict[str, dict[str, Bounds]]]

    @field_validator("ranges")
    @classmethod
    def _ordered(
        cls, ranges: dict[str, dict[str, dict[str, Bounds]]]
    ) -> dict[str, dict[str, dict[str, Bounds]]]:
        for methods in ranges.values():
            for keys in methods.values():
                for key, (low, high) in keys.items():
                    if not low < high:
                        raise ValueError(f"{key}: {low} is not below {high}")
        return ranges


class UniverseSettings(Settings):
    """Universes: readings of the paper, drawn from workflow/reference/open-questions.yaml.

    They are drawn in blocks, each a Latin hypercube, so adding universes leaves the earlier ones
    unchanged. The first block is the pilot. Universes take their seeds from the profile's, in turn.
    """

    experiments: dict[Name, Positive]  #: experiment -> number of universes
    block: Annotated[int, Field(ge=2, strict=True)] = 24  #: universes per Latin hypercube
    #: universes of each experiment that are computed with two seeds
    twice: Annotated[int, Field(ge=0, strict=True)] = 0
    tuning: Tuning

    @model_validator(mode="after")
    def _tuned(self) -> UniverseSettings:
        for name in self.experiments:
            if name not in self.tuning.ranges:
                raise ValueError(f"tuning.ranges has nothing for experiment {name!r}")
        return self

    def check(self, experiments: Mapping[str, Experiment], n_seeds: int) -> None:
        """Check that the profile can compute the universes.

        Args:
            experiments: the profile's experiments.
            n_seeds: number of the profile's seeds.

        Raises:
            ValueError: it cannot; the message names the key.
        """
        if self.twice and n_seeds < 2:
            raise ValueError("universes.twice needs two seeds or more")
        for name in self.experiments:
            if name not in experiments:
                raise ValueError(f"unknown experiment {name!r}{suggestion(name, experiments)}")
            self._check_tuning(name, experiments[name])
            for method in experiments[name].measurements:
                raise ValueError(
                    f"universes train every method: take {method!r} out of "
                    f"experiments.{name}.measurements"
                )

    def _check_tuning(self, name: str, experiment: Experiment) -> None:
        """Check that every method of an experiment, and none else, has ranges that fit it."""
        ranges = self.tuning.ranges[name]
        where = f"universes.tuning.ranges.{name}"
        for method in experiment.methods:
            if method not in ranges:
                raise ValueError(f"{where} has nothing for {method!r}")
        for method, keys in ranges.items():
            if method not in experiment.methods:
                raise ValueError(f"{where}: {method!r}{suggestion(method, experiment.methods)}")
            for end in (0, 1):
                try:
                    experiment.with_changes({key: keys[key][end] for key in keys}, method)
                except ValueError as error:
                    raise ValueError(f"{where}.{method}: {error}") from None
