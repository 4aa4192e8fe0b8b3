"""Common types and helpers of all settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from lft.errors import suggestion

#: An integer of at least 1.
Positive = Annotated[int, Field(ge=1, strict=True)]
#: A number above 0, at most 100.
Rate = Annotated[float, Field(gt=0, le=100)]
#: A number between 0 and 1, both excluded.
Fraction = Annotated[float, Field(gt=0, lt=1)]
#: A word of lower-case letters, digits and hyphens; it does not start with a hyphen.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
#: Names of families, joined by ``+``.
Mixture = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*(\+[a-z0-9][a-z0-9-]*)*$")]
Order = Literal["first", "zeroth"]

SHOWN = {"label", "note", "stands_in_for"}
"""Settings that change only how results are shown, not how they are computed."""


class Settings(BaseModel):
    """Base of all settings: frozen; rejects unknown keys and non-finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                hint = suggestion(str(key), cls.model_fields)
                raise PydanticCustomError("unknown_key", "{hint}", {"key": str(key), "hint": hint})
        return values


def refuse_twice(what: str, values: Sequence[Any]) -> None:
    """Check that no value is listed twice.

    Args:
        what: names the list in the message.
        values: the list.

    Raises:
        ValueError: a value is listed twice.
    """
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{what}: {value!r} is listed twice")


def put(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one existing key in nested settings, in place.

    Args:
        values: nested settings.
        dotted: dotted key, e.g. ``training.steps``.
        value: the new value.

    Raises:
        ValueError: there is no such key.
    """
    *parents, last = dotted.split(".")
    target: Any = values
    for key in (*parents, last):
        if not isinstance(target, dict) or key not in target:
            hint = suggestion(key, target) if isinstance(target, dict) else ""
            raise ValueError(f"unknown key {dotted!r}{hint}")
        parent, target = target, target[key]
    parent[last] = value


def digest(settings: dict[str, Any]) -> str:
    """SHA-256 of settings; identifies the checkpoints and outputs that belong to them."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
