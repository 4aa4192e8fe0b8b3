"""The section ``universes`` of a profile: how many readings of the paper are computed, and how."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from lft.config.base import Name, Positive, Settings

Bounds = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Tuning(Settings):
    """What any author would have tuned: every method gets the best of a few draws."""

    draws: Positive  #: for each method, judged on meta-validation tasks
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
    """Universes draw their forks from workflow/reference/open-questions.yaml.

    They are drawn in blocks, each a Latin hypercube, so that more of them leave the others as they
    are; the first block is the pilot. The profile's seeds are the pool that universes take theirs
    from in turn.
    """

    experiments: dict[Name, Positive]  #: how many universes
    block: Annotated[int, Field(ge=2, strict=True)] = 24  #: universes of a Latin hypercube
    twice: Annotated[int, Field(ge=0, strict=True)] = 0  #: of each experiment, with two seeds
    tuning: Tuning

    @model_validator(mode="after")
    def _tuned(self) -> UniverseSettings:
        for name in self.experiments:
            if name not in self.tuning.ranges:
                raise ValueError(f"tuning.ranges has nothing for experiment {name!r}")
        return self
