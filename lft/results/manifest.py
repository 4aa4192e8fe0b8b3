"""Provenance of a computation: commit, versions, machine and settings."""

from __future__ import annotations

import functools
import logging
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lft.config import Run, explain
from lft.errors import UsageError
from lft.paths import CHECKOUT
from lft.results.registered import registered_digest
from lft.storage.json import read_json

log = logging.getLogger(__name__)

PACKAGES = ("lft", "torch", "numpy", "pandas", "scipy", "snakemake")
"""Packages whose versions a manifest records."""


class Machine(BaseModel):
    """The machine that a computation ran on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    system: str
    processor: str
    cores: int | None


class Manifest(BaseModel):
    """The record of a computation; manifests of older versions lack some keys.

    Attributes:
        commit: commit of the checkout that the package ran from; None if unknown.
        modified: whether that checkout had uncommitted changes; None if unknown.
        claims: hash of the claims registered at the time.
        settings: every setting that the outcome depends on.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    device: str = "cpu"
    kernel: str | None = None
    commit: str | None
    modified: bool | None
    claims: str | None = None
    python: str
    versions: dict[str, str]
    machine: Machine
    settings: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest.

        Raises:
            UsageError: the file is missing, is not a JSON object or lacks a key.
        """
        content = read_json(path)
        for key, field in cls.model_fields.items():
            if field.is_required() and key not in content:
                raise UsageError(
                    f"{path}: {key!r} is missing; delete the file and run the workflow again"
                )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UsageError(
                f"{path}: {explain(error)}; delete the file and run the workflow again"
            ) from None

    def difference(self, settings: Mapping[str, Any]) -> str | None:
        """Describe the first setting that differs from the given ones; None if all agree."""
        return _difference(self.settings, settings)


class RunManifest(Manifest):
    """The run.json of a meta-training.

    Attributes:
        seconds: wall-clock time; ``cpu_seconds`` is CPU time.
        best_meta_batch: meta-batches done when the validation score was lowest.
        validation_score: that score, lower is better.
    """

    run: Run
    status: Literal["ok", "diverged"]
    reason: str = ""
    seconds: float
    cpu_seconds: float | None = None
    memory_mb: float | None = None
    threads: int | None = None
    meta_batches: int | None = None
    best_meta_batch: int | None = None
    validation_score: float | None = None


def _difference(made: Any, wanted: Any, key: str = "") -> str | None:
    """Describe the first differing value.

    Keys missing on one side do not count, because versions add and remove settings.
    """
    if isinstance(made, dict) and isinstance(wanted, dict):
        parts = (
            _difference(made[name], wanted[name], f"{key}.{name}" if key else name)
            for name in made
            if name in wanted
        )
        return next((part for part in parts if part), None)
    return None if made == wanted else f"{key} {made}, the profile says {wanted}"


def manifest(settings: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """Collect the provenance of the current computation, as a JSON object.

    Args:
        settings: every setting that the outcome depends on.
        facts: further entries.
    """
    commit, modified = _commit()
    return {
        **facts,
        "commit": commit,
        "modified": modified,
        "claims": registered_digest(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "settings": settings,
    }


def _commit() -> tuple[str | None, bool | None]:
    """Return the commit of the package's checkout, and whether it has uncommitted changes.

    Results do not count: a run rewrites those that git keeps of its profile.

    A checkout inside another repository counts as unknown, because git would report the outer
    commit.
    """
    if CHECKOUT is None:
        return None, None
    try:
        top = _git("rev-parse", "--show-toplevel")
        if not Path(top).samefile(CHECKOUT):
            _say_once(f"no commit is recorded: {CHECKOUT} is a part of the repository {top}")
            return None, None
        changes = _git(
            "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results"
        )
        return _git("rev-parse", "HEAD"), bool(changes)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        _say_once(f"no commit is recorded: git says {said[0] if said else error!r}")
        return None, None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(CHECKOUT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


@functools.cache
def _say_once(line: str) -> None:
    log.warning(line)


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
