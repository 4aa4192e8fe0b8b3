"""The section ``universes`` of a profile: number of readings of the paper, and their tuning."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from lft.config.base import Name, Positive, Settings

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
