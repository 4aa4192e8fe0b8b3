"""The JSON schema of a profile's file, for editors and other programs."""

from __future__ import annotations

from typing import Any

from lft.config.profile import Profile

NULL = {"type": "null"}


def schema() -> dict[str, Any]:
    """The JSON schema of what may stand in a profile's file.

    A file that extends another holds only what differs, and removes a key by ``null``; so no key is
    required and any may be null. Keys that start with ``_`` hold YAML anchors. What a profile must
    have, and how its parts fit together, :func:`lft.config.load_profile` checks.
    """
    found = _partial(Profile.model_json_schema())
    found["properties"]["extends"] = {
        "type": "string",
        "description": "File or name of the profile that this one is based on",
    }
    found["patternProperties"] = {"^_": {}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _partial(node: Any) -> Any:
    """A schema in which objects may lack any property, and any property may be null."""
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
