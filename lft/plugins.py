"""Plug-ins: fine-tuners, methods, task families and figures from outside the package.

A plug-in is an object referenced as ``module:attribute``. Installed packages list theirs as entry
points of the groups ``lft.finetuners``, ``lft.methods``, ``lft.tasks`` and ``lft.figures``. A
profile lists more under its key ``plugins``, where ``path/to/module.py:attribute`` and
``path/to/package:attribute`` also work. This module does not import torch, and it imports a plug-in
only on use.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from lft.errors import UsageError

Group = Literal["finetuners", "methods", "tasks", "figures"]

_places: dict[str, Path] = {}
"""File of each module that a profile references by path."""


def installed(group: Group) -> list[str]:
    """List the references ``module:attribute`` of installed packages, by entry-point name."""
    return [point.value for point in sorted(entry_points(group=f"lft.{group}"))]


def located(reference: str, folder: Path) -> str:
    """Convert a profile's reference to ``module:attribute``, and register the path if it has one.

    Args:
        reference: ``module:attribute`` or ``path:attribute``.
        folder: base of relative paths.

    Raises:
        UsageError: the reference has no colon, its path does not exist, or a module of that name
            was loaded from elsewhere.
    """
    place, colon, attribute = reference.partition(":")
    if not (place and colon and attribute):
        raise UsageError(
            f"plug-in {reference!r} must be module:name or path:name, e.g. my_method.py:METHOD"
        )
    path = (folder / place).resolve()
    if path.is_dir():
        path = path / "__init__.py"
    if not path.is_file():
        if "/" in place or place.endswith(".py"):
            raise UsageError(f"plug-in {reference!r}: there is no {path}")
        return reference
    name = path.parent.name if path.name == "__init__.py" else path.stem
    before = _places.get(name) or getattr(sys.modules.get(name), "__file__", None)
    if before is not None and Path(before).resolve() != path:
        raise UsageError(f"plug-in {path} has the same name as the module {before}; rename it")
    _places[name] = path
    return f"{name}:{attribute}"


def load_object(reference: str) -> Any:
    """Import the object that ``module:attribute`` names.

    Raises:
        UsageError: the module cannot be imported or has no such attribute.
    """
    module, _, attribute = reference.partition(":")
    try:
        return getattr(_module(module), attribute)
    except UsageError:
        raise
    except Exception as error:  # A plug-in's code may raise anything.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UsageError(f"plug-in {reference!r} cannot be imported ({reason})") from error


def source_files(reference: str) -> list[Path]:
    """List the Python files of a plug-in's module, or of the package that contains it."""
    name = reference.partition(":")[0].partition(".")[0]
    found = importlib.util.find_spec(name) if name not in _places else None
    path = Path(found.origin) if found and found.origin else _places.get(name)
    if path is None:
        return []
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]


def _module(name: str) -> ModuleType:
    """Import a module, from its registered path if it has one."""
    top = name.partition(".")[0]
    if top in _places and top not in sys.modules:
        path = _places[top]
        inside = [str(path.parent)] if path.name == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(top, path, submodule_search_locations=inside)
        if spec is None or spec.loader is None:
            raise UsageError(f"plug-in {path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[top] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[top]
            raise
    return importlib.import_module(name)
