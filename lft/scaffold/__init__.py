"""Templates of plug-ins: complete, tested projects that ``lft new`` copies under another name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from lft.errors import UsageError
from lft.storage.atomic import atomic_folder

Kind = Literal["method", "task", "figure"]

FOLDER = Path(__file__).parent


def create(kind: Kind, name: str, parent: Path) -> Path:
    """Write a plug-in's project: a package, its test, a profile that uses it and pyproject.toml.

    Args:
        name: small letters, digits and hyphens; names the project's folder too.
        parent: where the folder goes.

    Returns:
        The folder.

    Raises:
        UsageError: the name does not fit, the folder exists or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"{name!r}: a name has small letters, digits and hyphens, as in my-{kind}")
    target = parent / name
    if target.exists():
        raise UsageError(f"{target} exists; choose another name")
    words = name.split("-")
    names = {
        "example-name": name,
        "example_name": "_".join(words),
        "ExampleName": "".join(word.capitalize() for word in words),
        "Example name": " ".join(words).capitalize(),
    }
    with atomic_folder(target) as folder:
        for path in sorted((FOLDER / kind).rglob("*.*")):
            if path.suffix not in (".py", ".toml", ".yaml"):
                continue
            place = folder / _renamed(str(path.relative_to(FOLDER / kind)), names)
            place.parent.mkdir(exist_ok=True)
            place.write_text(_renamed(path.read_text(encoding="utf-8"), names), encoding="utf-8")
    return target


def _renamed(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text
