"""Result folders with a report, without training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from result_folders import make, profile, results, sine

from lft.config import Profile
from lft.report.alternatives import write_alternatives
from lft.report.claims import write_claims
from lft.report.figures import draw_figures
from lft.report.page import write_page
from lft.report.tables import write_tables

__all__ = ["make", "profile", "report", "results", "sine"]


@pytest.fixture(scope="session")
def report(profile: Profile, results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with tables, claims, figures and page. Do not change it."""
    folder = tmp_path_factory.mktemp("report") / "results"
    shutil.copytree(results, folder)
    for write in (write_tables, write_claims, write_alternatives, draw_figures, write_page):
        write(profile, folder)
    return folder
