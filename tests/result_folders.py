"""Fixtures: result folders without training."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from synthetic import report_profile, write_results

from lft.config import Profile
from lft.results.aggregate import aggregate


@pytest.fixture(scope="session")
def profile() -> Profile:
    """Three seeds."""
    return report_profile()


@pytest.fixture(scope="session")
def sine() -> Profile:
    """Three seeds, sine regression only."""
    return report_profile((0, 1, 2), "sine")


Built = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A folder by its name, built by the first process of the test run that asks for it."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def find(name: str, build: Callable[[Path], object]) -> Path:
        folder = root / name
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                unfinished = Path(f"{folder}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)  # of a build that failed
                build(unfinished)
                unfinished.rename(folder)
        return folder

    return find


@pytest.fixture(scope="session")
def complete(built: Built) -> Callable[[Profile], Path]:
    """The result folder of a profile, written and aggregated. Do not change it."""

    def find(planned: Profile) -> Path:
        def build(folder: Path) -> None:
            write_results(planned, folder)
            aggregate(planned, folder)

        digest = hashlib.sha256(planned.model_dump_json().encode()).hexdigest()[:12]
        return built(f"results-{digest}", build)

    return find


@pytest.fixture(scope="session")
def results(profile: Profile, complete: Callable[[Profile], Path]) -> Path:
    """Complete and aggregated; the paper's orderings hold. Do not change it."""
    return complete(profile)


@pytest.fixture
def make(
    profile: Profile, complete: Callable[[Profile], Path], tmp_path: Path
) -> Callable[..., Path]:
    """Another result folder, to be changed; keywords as of ``write_results``."""

    def write(planned: Profile = profile, **changes: Any) -> Path:
        if not changes:
            return Path(shutil.copytree(complete(planned), tmp_path, dirs_exist_ok=True))
        write_results(planned, tmp_path, **changes)
        aggregate(planned, tmp_path)
        return tmp_path

    return write
