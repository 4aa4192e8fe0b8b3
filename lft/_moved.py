"""Old module names: importing one gives the module at its new name, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "lft.adapt": "lft.meta.adapt",
    "lft.atomic": "lft.storage.atomic",
    "lft.crate": "lft.results.crate",
    "lft.evaluate": "lft.meta.evaluate",
    "lft.finetuners.learned": "lft.config.finetuners",
    "lft.gradients": "lft.meta.gradients",
    "lft.learner": "lft.meta.learner",
    "lft.metatrain": "lft.meta.train",
    "lft.records": "lft.results",
    "lft.report.aggregate": "lft.results.aggregate",
    "lft.results.records": "lft.results",
    "lft.weights": "lft.storage.tensors",
    "lft.world": "lft.tasks.build",
}


class _Alias(Loader):
    """Return the module at the new name and restore its own spec; execute nothing again."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(MOVED[spec.name])
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in MOVED:
            return None
        warnings.warn(f"{name} is now {MOVED[name]}", DeprecationWarning, stacklevel=2)
        return ModuleSpec(name, _Alias())


def install() -> None:
    """Make the old names importable in this process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
