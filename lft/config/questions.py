"""The paper's open questions as data: their forks, with a weight and a reason for every level."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from lft.config.base import Name, Settings, put, refuse_twice
from lft.config.problems import explain
from lft.config.profile import Profile
from lft.config.reading import read_yaml
from lft.errors import UsageError
from lft.paths import shipped

QUESTIONS = shipped("workflow", "reference", "open-questions.yaml")
Reason = Annotated[str, Field(min_length=1)]
Quantile = Annotated[float, Field(ge=0, lt=1)]


class Level(Settings):
    """One plausible answer to an open question."""

    value: Any  #: value of every key in the fork's ``sets``; without them, dotted key -> value
    label: str = ""  #: shown in place of the value
    weight: Annotated[float, Field(gt=0)] = 1.0  #: plausibility, relative to the other levels
    reason: Reason  #: why it is plausible

    @property
    def name(self) -> str:
        """The label, or the value as text if there is none."""
        return self.label or str(self.value)


class Range(Settings):
    """An interval of plausible values of a number, drawn to two significant digits."""

    low: float
    high: float
    log: bool = False  #: draw uniformly in the logarithm
    reason: Reason  #: why the interval is plausible

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low {self.low} and high {self.high} are not a range")
        return self

    def at(self, quantile: float) -> float:
        """Value at a quantile of the range, rounded to two significant digits."""
        if self.log:
            value = self.low * (self.high / self.low) ** quantile
        else:
            value = self.low + quantile * (self.high - self.low)
        return float(f"{value:.2g}")

    @property
    def middle(self) -> float:
        """Median of the range."""
        return math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2


class Fork(Settings):
    """A choice that every universe of the named experiments makes once, for all methods.

    The keys that it sets are dotted keys of the experiment or begin with one of these prefixes.
    ``profile.`` is a key of the profile. ``methods.`` replaces a method by another. ``judged.step``
    is the fine-tuning step, and ``judged.set`` the set (``query`` or ``support``), on which claims
    are judged.
    """

    name: Name
    experiments: Annotated[tuple[Name, ...], Field(min_length=1)]
    sets: tuple[str, ...] = ()  #: keys that it sets, dotted
    levels: tuple[Level, ...] = ()
    range: Range | None = None

    @model_validator(mode="after")
    def _complete(self) -> Fork:
        if (self.range is None) == (len(self.levels) < 2):
            raise ValueError(f"fork {self.name!r} needs two or more levels, or a range")
        if self.range is not None and not self.sets:
            raise ValueError(f"fork {self.name!r}: a range needs the keys that it sets")
        for level in self.levels:
            if not self.sets and not isinstance(level.value, dict):
                raise ValueError(
                    f"fork {self.name!r}: without 'sets' a value is a mapping of dotted keys"
                )
        refuse_twice(f"fork {self.name!r}", [level.name for level in self.levels])
        return self

    def at(self, quantile: Quantile) -> tuple[str, dict[str, Any]]:
        """Name of the level at a quantile of the weights, and its values by dotted key."""
        if self.range is not None:
            value = self.range.at(quantile)
            return f"{value:g}", dict.fromkeys(self.sets, value)
        left = quantile * sum(level.weight for level in self.levels)
        for level in self.levels[:-1]:
            left -= level.weight
            if left < 0:
                return level.name, self._changes(level)
        return self.levels[-1].name, self._changes(self.levels[-1])

    def _changes(self, level: Level) -> dict[str, Any]:
        return dict.fromkeys(self.sets, level.value) if self.sets else dict(level.value)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that one of its levels sets."""
        return self.sets or tuple(dict.fromkeys(k for level in self.levels for k in level.value))

    def group(self, name: str) -> str:
        """Group of a universe by its level's name: the level, or the half of the range it is in."""
        if self.range is None:
            return name
        middle = f"{self.range.middle:.2g}"
        return f"< {middle}" if float(name) < self.range.middle else f"≥ {middle}"

    @property
    def groups(self) -> dict[str, float]:
        """Weight of each level, or of each half of a range; they sum to 1."""
        if self.range is not None:
            middle = f"{self.range.middle:.2g}"
            return {f"< {middle}": 0.5, f"≥ {middle}": 0.5}
        total = sum(level.weight for level in self.levels)
        return {level.name: level.weight / total for level in self.levels}


class Question(Settings):
    """A question that the paper leaves open, with either ``forks`` or ``fixed`` as its answer."""

    id: Annotated[str, Field(pattern=r"^O[0-9]+$")]
    gap: str  #: information that the paper lacks
    choice: str  #: dotted key of the experiment whose value the report prints; may be empty
    methods: tuple[str, ...] = ()  #: methods that answer the question differently
    note: str
    figures: str = ""  #: prefix of the names of figures that show other choices
    forbids: str = ""  #: answers that the paper's text rules out
    forks: tuple[Fork, ...] = ()  #: choices that universes vary
    fixed: str = ""  #: why no universe varies it, or how it is tuned

    @model_validator(mode="after")
    def _answered(self) -> Question:
        if bool(self.forks) == bool(self.fixed):
            raise ValueError(f"question {self.id} needs either 'forks' or 'fixed'")
        return self


@functools.cache
def load_questions(path: Path = QUESTIONS) -> tuple[Question, ...]:
    """Read the open questions.

    Raises:
        UsageError: the file is not valid; the message names the question and the key.
    """
    entries = read_yaml(path, "open questions")
    if not isinstance(entries, list):
        raise UsageError(f"{path}: expected a list of questions")
    try:
        found = TypeAdapter(tuple[Question, ...]).validate_python(entries)
        refuse_twice("questions", [question.id for question in found])
        for name in {name for fork in _forks(found) for name in fork.experiments}:
            refuse_twice(f"forks of {name}", [fork.name for fork in forks(found, name)])
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error)}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    return found


def _forks(questions: tuple[Question, ...]) -> list[Fork]:
    return [fork for question in questions for fork in question.forks]


def forks(questions: tuple[Question, ...], experiment: str) -> list[Fork]:
    """Forks of an experiment, in the order of the questions."""
    return [fork for fork in _forks(questions) if experiment in fork.experiments]


def choose(profile: dict[str, Any], experiment: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a key of a fork, in place.

    Args:
        profile: settings of a profile.
        experiment: settings of one of its experiments.
        dotted: the key, as in :class:`Fork`.
        value: the new value.

    Raises:
        ValueError: there is no such key.
    """
    where, _, rest = dotted.partition(".")
    if where == "profile":
        put(profile, rest, value)
    elif where not in ("methods", "judged"):
        put(experiment, dotted, value)


def check_forks(profile: Profile) -> None:
    """Check that a profile with universes has every key that their forks set.

    Raises:
        ValueError: it lacks one.
    """
    for name in profile.universes.experiments if profile.universes else ():
        for fork in forks(load_questions(), name):
            for key in fork.keys:
                try:
                    choose(profile.model_dump(), profile.experiment(name).model_dump(), key, None)
                except ValueError as error:
                    raise ValueError(
                        f"universes: fork {fork.name!r} of {name!r}: {error}; give the profile "
                        f"that key, or take {name!r} out of universes.experiments"
                    ) from None
