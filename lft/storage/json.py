"""Write JSON objects atomically and read them; errors name the file and the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lft.errors import UsageError
from lft.storage.atomic import write_text


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with its keys in the order given.

    Raises:
        UsageError: the folder cannot be written or the disk is full.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path | str, **needed: type) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        needed: required keys and the types of their values; an int counts as a float.

    Raises:
        UsageError: the file is missing, does not contain a JSON object, or lacks a required key.
    """
    again = "delete the file and run the workflow again"
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}; {again}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} does not hold a JSON object; {again}")
    for key, kind in needed.items():
        expected = (float, int) if kind is float else kind
        if key not in content or not isinstance(content[key], expected):
            raise UsageError(f"{path}: {key!r} is missing or no {kind.__name__}; {again}")
    return content
