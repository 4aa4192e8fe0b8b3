"""Explain invalid settings in one line."""

from __future__ import annotations

import reprlib

from pydantic import ValidationError


def explain(error: ValidationError) -> str:
    """Describe the first problem of a failed validation, and suggest a key for a misspelt one."""
    problem = min(error.errors(), key=lambda item: item["type"] == "missing")
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "unknown_key":
        key = " ".join(".".join([*location, problem["ctx"]["key"]]).split())
        return f"unknown key {key!r}{problem['ctx']['hint']}"
    where = " ".join(".".join(location).split()) or error.title.lower()
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] != "value_error":
        message += f" (given: {reprlib.repr(problem['input'])})"
    return f"{where}: {message[0].lower()}{message[1:]}"
