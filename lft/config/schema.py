"""JSON schema of profile files, for editors and other programs."""

from __future__ import annotations

from typing import Any

from lft.config.profile import Profile

NULL = {"type": "null"}


def schema() -> dict[str, Any]:
    """JSON schema of a profile file.

    A file that extends another contains only the differences and removes keys with ``null``, so no
    key is required and any key may be null. Keys that start with ``_`` contain YAML anchors.
    :func:`lft.config.load_profile` checks that a profile is complete and consistent.
    """
    found = _partial(Profile.model_json_schema())
    found["properties"]["extends"] = {
        "type": "string",
        "description": "File or name of the profile that this one is based on",
    }
    found["patternProperties"] = {"^_": {}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _partial(node: Any) -> Any:
    """Make every property of a schema optional and nullable."""
    if isinstance(node, list):
        return [_partial(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _partial(value) for key, value in node.items() if key != "required"}
    for key in ("properties", "patternProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = {name: _or_null(value) for name, value in kept[key].items()}
    if isinstance(others := kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = _or_null(others)
    return kept


def _or_null(node: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [node, NULL]}
