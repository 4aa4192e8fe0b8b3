"""What is wrong with settings, in one line."""

from __future__ import annotations

import reprlib
import types
import typing
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

from lft.config.families import FAMILIES, FamilySettings
from lft.errors import suggestion


def explain(error: ValidationError, validated: type[BaseModel]) -> str:
    """The first problem of a validation, in one line, with the nearest key for a misspelt one."""
    problem = min(error.errors(), key=lambda item: item["type"] == "missing")
    location = [
        str(part)
        for index, part in enumerate(problem["loc"])
        if index < 2 or problem["loc"][index - 2] != "families"  # pydantic inserts the kind there
    ]
    where = " ".join(".".join(location).split()) or validated.__name__.lower()
    if problem["type"] == "extra_forbidden":
        model = _model_at(validated, problem["loc"][:-1])
        return (
            f"unknown key {where!r}{suggestion(location[-1], model.model_fields if model else ())}"
        )
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    if problem["type"] == "union_tag_not_found":
        return f"key '{where}.kind' is missing"
    if problem["type"] == "union_tag_invalid":
        kinds = problem["ctx"]["expected_tags"].replace("'", "").split(", ")
        kind = problem["ctx"]["tag"]
        return f"{where}.kind: unknown kind {kind!r}{suggestion(kind, kinds)}"
    message = problem["msg"].removeprefix("Value error, ")
    given = (
        "" if problem["type"] == "value_error" else f" (given: {reprlib.repr(problem['input'])})"
    )
    return f"{where}: {message[0].lower()}{message[1:]}{given}"


def _model_at(annotation: Any, location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The settings class at a location of a validation error."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _model_at(typing.get_args(annotation)[0], location)
    if annotation is FamilySettings and location:
        return _model_at(FAMILIES.get(str(location[0])), location[1:])
    if origin in (types.UnionType, typing.Union):
        members = [member for member in typing.get_args(annotation) if isinstance(member, type)]
        return next((found for m in members if (found := _model_at(m, location))), None)
    if origin is dict:
        return _model_at(typing.get_args(annotation)[1], location[1:])
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None
    if not location:
        return annotation
    field = annotation.model_fields.get(str(location[0]))
    return _model_at(field.annotation, location[1:]) if field else None
