"""Imports point one way, and light commands stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lft

ROOT = Path(lft.__file__).parent

LAYERS = (
    {"lft._moved", "lft.errors", "lft.shapes"},
    {"lft.paths", "lft.seeding"},
    {"lft.storage"},
    {"lft.methods", "lft.metrics", "lft.plugins"},
    {"lft.config", "lft.types"},
    {"lft.runtime", "lft.kernels", "lft.results"},
    {"lft.data"},
    {"lft.finetuners"},
    {"lft.tasks"},
    {"lft.meta"},
    {"lft.optimizer", "lft.testing"},
    {"lft.pretrained"},
    {"lft.attacks", "lft.library"},
    {"lft.art", "lft"},
    {"lft.theory", "lft.report"},
    {"lft.scaffold"},
    {"lft.commands"},
    {"lft.cli"},
    {"lft.__main__"},
)
"""A module imports from its own layer (within a package) and from layers above it here."""


def module_of(path: Path) -> str:
    parts = ("lft", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def unit(module: str) -> str:
    """The module, or the package below lft that it belongs to."""
    return ".".join(module.split(".")[:2])


def layer(module: str) -> int:
    return next(rank for rank, units in enumerate(LAYERS) if unit(module) in units)


def imported(path: Path) -> set[str]:
    """Modules of this package that a file imports, wherever in the file.

    Except for the settings: what their methods build, and what only annotates it, lies below them.
    """
    found = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if path.parent.name == "config" else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lft"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in names if is_module(name)}
            found |= modules or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("lft")}
    return found


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=module_of)
def test_imports_point_one_way(path: Path) -> None:
    module = module_of(path)
    for other in imported(path):
        below = layer(other) < layer(module)
        assert below or unit(other) == unit(module), f"{module} imports {other}"


def modules_after(code: str) -> set[str]:
    """Names of all modules loaded by a fresh interpreter that runs some code."""
    command = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    return set(done.stdout.decode().split())


def test_the_contract_is_light() -> None:
    light = modules_after("import lft.config, lft.methods, lft.results, lft.seeding, lft.cli")
    assert not light & {"torch", "pandas", "matplotlib", "scipy"}


def test_the_report_never_imports_torch() -> None:
    modules = [module_of(path) for path in sorted((ROOT / "report").rglob("*.py"))]
    assert "torch" not in modules_after("import " + ", ".join(modules))


BANNED = re.compile(
    r"import pickle|torch\.load\(|allow_pickle=True|\btorch\.manual_seed\("
    r"|np\.random\.(?!Generator\b|default_rng\(seed_from\()"
)
"""Pickle, and randomness that is global or has no seed from named parts."""


def test_no_module_uses_pickle_or_the_global_random_state() -> None:
    for path in ROOT.rglob("*.py"):
        assert not BANNED.findall(path.read_text()), path
