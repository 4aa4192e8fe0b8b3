"""Templates of plug-ins: complete, tested projects that ``lft new`` copies under another name."""

from __future__ import annotations

import ast
import importlib.util
import keyword
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from lft.config import FAMILIES
from lft.errors import UsageError
from lft.methods import METHODS
from lft.paths import shipped
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
    if taken := _taken(kind, name):
        raise UsageError(f"{name!r} {taken}; choose another name")
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


def _taken(kind: Kind, name: str) -> str | None:
    """What else a name is, of all that it is going to be used as."""
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module)
    known: dict[Kind, Collection[str]] = {"method": METHODS, "task": FAMILIES, "figure": ()}
    profiles = [path.stem for path in shipped("workflow", "config").glob("*.yaml")]
    title = "".join(word.capitalize() for word in name.split("-"))
    titles = {module, title, f"{title}Settings"}
    for applies, what in (
        (any(map(keyword.iskeyword, titles)), "is a word of Python"),
        (module == "lft", "is this package"),
        (module in sys.stdlib_module_names, "is a module of Python"),
        (spec is not None and spec.origin is not None, "is an installed package"),
        (name in known[kind], f"is a {kind} of lft"),
        (name in profiles, "is a profile that comes with lft"),
        (titles & _imported(kind), "is a name that the template imports"),
    ):
        if applies:
            return what
    return None


def _imported(kind: Kind) -> set[str]:
    """Names that the modules of a template import."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (FOLDER / kind).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def _renamed(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text
