"""The source files that a job's outcome depends on, found by following imports.

Snakemake does not see edits inside a package, so each rule has a digest of these files among its
parameters. No list is kept by hand: each command in :mod:`lft.commands.jobs` imports the modules
that do its job.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from lft.paths import PACKAGE


class Sources:
    """The files of a package and its import graph, which is parsed once.

    Args:
        package: folder of the package.
    """

    def __init__(self, package: Path = PACKAGE) -> None:
        self.package = package
        self._parsed: dict[Path, tuple[frozenset[str], frozenset[str]]] = {}
        self._found: dict[tuple[str, frozenset[Path]], frozenset[Path]] = {}

    def digest(self, command: str, others: Iterable[Path] = ()) -> str:
        """Return a digest of all files that a command of ``lft`` depends on.

        Args:
            command: function in :mod:`lft.commands.jobs`.
            others: files of plug-ins; they count with everything that they import.

        Raises:
            LookupError: there is no such command, or it imports nothing of the package.
        """
        content = hashlib.sha256()
        for path in sorted(self.files(command, others)):
            inside = path.is_relative_to(self.package)
            name = path.relative_to(self.package).as_posix() if inside else path.name
            content.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
        return content.hexdigest()[:16]

    def files(self, command: str, others: Iterable[Path] = ()) -> frozenset[Path]:
        """Return the files that a command of ``lft`` depends on, see :meth:`digest`."""
        key = command, frozenset(others)
        if key not in self._found:
            self._found[key] = self._files(*key)
        return self._found[key]

    def _files(self, command: str, others: frozenset[Path]) -> frozenset[Path]:
        entries = self._commands.get(command, frozenset())
        if not any(map(self._file, entries)):
            raise LookupError(f"{self.package}/commands/jobs.py has no command {command!r}")
        found = self.closure(entries.union(*(self._imports(path)[1] for path in others)))
        folders = {path.parent for path in found}
        return others.union(found, *map(self._beside, folders))

    def closure(self, modules: Iterable[str]) -> set[Path]:
        """Return the files of some modules and of all that they import, even inside functions.

        Settings know how to build what they describe, but many jobs read them and build nothing. An
        import inside a function of the package ``config`` therefore counts only if the job also
        imports something else of the same package.

        Args:
            modules: absolute names.
        """
        waiting = {(module, True) for module in modules}
        done: dict[str, bool] = {}
        builds: set[str] = set()
        while waiting:
            name, whole = waiting.pop()
            path = self._file(name)
            if path is not None and not done.get(name) and (whole or name not in done):
                done[name] = whole
                at_once, anywhere = self._imports(path)
                if path.parent == self.package / "config":
                    builds |= anywhere - at_once
                    anywhere = at_once
                waiting |= {(other, True) for other in (anywhere if whole else at_once)}
                # Importing a module runs the packages around it, but none of their functions.
                waiting |= {(package, False) for package in _around(name)}
            if not waiting:
                reached = {_room(other) for other in done}
                waiting = {(other, True) for other in builds if _room(other) in reached}
                builds -= {other for other, _ in waiting}
        return {path for name in done if (path := self._file(name))}

    @cached_property
    def _commands(self) -> dict[str, frozenset[str]]:
        """Imports of each command in lft/commands/jobs.py."""
        tree = ast.parse((self.package / "commands" / "jobs.py").read_bytes())
        functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
        return {node.name: frozenset(self._named(node, into=True)) for node in functions}

    def _imports(self, path: Path) -> tuple[frozenset[str], frozenset[str]]:
        """Return a file's imports at import time, and all its imports."""
        if path not in self._parsed:
            tree = ast.parse(path.read_bytes())
            found = (frozenset(self._named(tree, into=into, path=path)) for into in (False, True))
            self._parsed[path] = (next(found), next(found))
        return self._parsed[path]

    def _named(self, node: ast.AST, *, into: bool, path: Path | None = None) -> Iterator[str]:
        """Yield the modules that a piece of code imports, or names as ``module:attribute``.

        Args:
            node: the code.
            into: whether to look inside functions.
            path: the file, to resolve relative imports.
        """
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = self._base(child, path)
                yield from (base, *(f"{base}.{alias.name}" for alias in child.names))
            elif isinstance(child, ast.Constant):
                if isinstance(child.value, str) and ":" in child.value:
                    yield child.value.partition(":")[0]
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for branch in child.orelse:
                    yield from self._named(branch, into=into, path=path)
            elif into or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield from self._named(child, into=into, path=path)

    def _base(self, node: ast.ImportFrom, path: Path | None) -> str:
        """Return the package or module after ``from``, as an absolute name."""
        if not node.level or path is None or not path.is_relative_to(self.package):
            return node.module or ""
        parts = path.relative_to(self.package.parent).parts[: -node.level]
        return ".".join((*parts, *filter(None, [node.module])))

    def _file(self, module: str) -> Path | None:
        """Return the file of a module of the package; None for other modules."""
        top, *parts = module.split(".")
        if top != self.package.name or not all(parts):
            return None
        path = self.package.joinpath(*parts)
        candidates = (path / "__init__.py", path.parent / f"{path.name}.py")
        return next((file for file in candidates if file.is_file()), None)

    def _beside(self, folder: Path) -> set[Path]:
        """Return the files of a package that are not Python: kernel sources, shipped weights."""
        if folder == self.package:
            return set()
        inner = {init.parent for init in folder.rglob("__init__.py")} - {folder}
        return {
            file
            for file in folder.rglob("*")
            if file.is_file() and file.suffix not in (".py", ".pyc")
            if inner.isdisjoint(file.parents)
        }


def _around(module: str) -> list[str]:
    """Return the packages that contain a module."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _room(module: str) -> str:
    """Return the top-level subpackage or module that contains a module."""
    return ".".join(module.split(".")[:2])
