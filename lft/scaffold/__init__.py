"""Templates of plug-ins: complete, tested projects that ``lft new`` copies under another name."""

from __future__ import annotations

import ast
import importlib.util
import keyword
import re
import sys
from pathlib import Path
from typing import Literal

from lft.config import FAMILIES, FINETUNERS
from lft.errors import UsageError
from lft.methods import METHODS
from lft.paths import shipped
from lft.storage.atomic import atomic_folder

Kind = Literal["method", "task", "figure"]

FOLDER = Path(__file__).parent


def create(kind: Kind, name: str, parent: Path) -> Path:
    """Write a plug-in's project: a package, its test, a profile that uses it and pyproject.toml.

    Args:
        kind: kind of plug-in.
        name: small letters, digits and hyphens; also names the project's folder.
        parent: where to put the folder.

    Returns:
        The folder.

    Raises:
        UsageError: the name is not allowed, or the folder exists or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"{name!r}: use small letters, digits and hyphens, as in my-{kind}")
    _check_free(kind, name)
    target = parent / name
    if target.exists():
        raise UsageError(f"{target} exists; choose another name")
    words = name.split("-")
    names = {
        "example-name": name,
        "example_name": "_".join(words),
        "ExampleName": _in_capitals(name),
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


def _check_free(kind: Kind, name: str) -> None:
    """Refuse a name that would clash with a module, a method, a profile or the template."""
    module, word = name.replace("-", "_"), _in_capitals(name)
    if keyword.iskeyword(module) or keyword.iskeyword(word):
        raise UsageError(f"{name!r} is a Python keyword; choose another name")
    if module == "lft":
        raise UsageError(f"{name!r} is this package; choose another name")
    if module in sys.stdlib_module_names or importlib.util.find_spec(module):
        raise UsageError(f"{name!r} is a Python module; choose another name")
    if name in {*METHODS, *FAMILIES, *FINETUNERS}:
        raise UsageError(f"{name!r} is the name of a method, family or fine-tuner; choose another")
    if shipped("workflow", "config", f"{name}.yaml").exists():
        raise UsageError(f"{name!r} is a profile that comes with lft; choose another name")
    if {module, word, f"{word}Settings"} & _imported(kind):
        raise UsageError(f"{name!r} is a name that the template imports; choose another name")


def _imported(kind: Kind) -> set[str]:
    """Return the names that the modules of a template import."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (FOLDER / kind).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def _in_capitals(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


def _renamed(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text
