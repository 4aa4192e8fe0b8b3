"""Fixtures: result folders without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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


@pytest.fixture(scope="session")
def results(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Complete and aggregated; the paper's orderings hold. Do not change it."""
    folder = tmp_path_factory.mktemp("results")
    write_results(profile, folder)
    aggregate(profile, folder)
    return folder


@pytest.fixture
def make(profile: Profile, tmp_path: Path) -> Callable[..., Path]:
    """Write and aggregate another result folder; keywords as of ``write_results``."""

    def write(planned: Profile = profile, **changes: Any) -> Path:
        write_results(planned, tmp_path, **changes)
        aggregate(planned, tmp_path)
        return tmp_path

    return write
