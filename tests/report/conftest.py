"""Result folders with a report, without training."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from result_folders import Built, built, complete, make, profile, results, sine
from synthetic import TRAINED, write_history

from lft.config import Profile
from lft.report.alternatives import write_alternatives
from lft.report.claims import write_claims
from lft.report.figures import draw_figures
from lft.report.multiverse import Share
from lft.report.page import write_page
from lft.report.tables import write_tables
from lft.storage.csv import write_rows
from lft.storage.json import write_json

__all__ = [
    "built", "complete", "make", "profile", "report", "results", "sine", "surrounded",
    "write_report",
]  # fmt: skip


@pytest.fixture(scope="session")
def write_report() -> Callable[[Profile, Path], None]:
    """Writes tables, claims, figures and page of a result folder."""

    def write_all(profile: Profile, folder: Path) -> None:
        for write in (write_tables, write_claims, write_alternatives, draw_figures, write_page):
            write(profile, folder)

    return write_all


@pytest.fixture(scope="session")
def report(
    profile: Profile,
    results: Path,
    built: Built,
    write_report: Callable[[Profile, Path], None],
) -> Path:
    """The same with tables, claims, figures and page. Do not change it."""

    def build(folder: Path) -> None:
        shutil.copytree(results, folder)
        write_report(profile, folder)

    return built("report", build)


@pytest.fixture(scope="session")
def surrounded(profile: Profile, report: Path, built: Built) -> Path:
    """The same beside benchmarks, an ablation and a multiverse, and with two trainings that say
    how they ended. Do not change it."""

    def build(folder: Path) -> None:
        copy = Path(shutil.copytree(report, folder / profile.name))
        (folder / "ablation").symlink_to(report)
        groups = {"g": {"own_kernel": 0.002, "loop": 0.008}}
        write_json(folder / "benchmarks/p.json", {"processor": "P", "torch": "2", "groups": groups})
        row = Share(
            "sine-lft-l2o-first", "sine", 64, 50, 0.8, 0.1, 0.1, 0.68, 0.9, 10, 4, 0.3,
            "contradicted", "no",
        )  # fmt: skip
        vacuous = row._replace(
            claim="sine-lft-maml-first", judged=0, for_it=math.nan, vacuous=64, diverged=0
        )
        write_rows(folder / "multiverse/shares.csv", Share._fields, [row, vacuous])
        runs = [run for run in profile.runs("attack") if run[1:4] == ("mnist", "lft", "first")]
        for run, scores in zip(runs[:2], (TRAINED, TRAINED[::-1]), strict=True):
            write_history(copy, run, scores, error=0.01)
        write_page(profile, copy)

    return built("surrounded", build) / profile.name
