"""What all settings are made of."""

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
#: A word of lower-case letters, digits and hyphens.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
#: Names of families, joined by ``+``.
Mixture = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*(\+[a-z0-9][a-z0-9-]*)*$")]
Order = Literal["first", "zeroth"]

SHOWN = {"label", "note", "stands_in_for"}
"""Settings that change how results are shown, and nothing that is computed."""


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys and numbers that are not finite refused."""

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
    """Check that no value is listed twice; ``what`` names the list.

    Raises:
        ValueError: one is.
    """
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{what}: {value!r} is listed twice")


def put(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Change one of nested settings, named by its dotted key.

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
    """SHA-256 of settings, to tell whether a checkpoint or an output belongs to them."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
