"""Building the report of a finished run: tables, claims, figures and page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lft.report.alternatives import write_alternatives
from lft.report.claims import write_claims
from lft.report.figures import draw_figures
from lft.report.page import write_page
from lft.report.tables import write_tables
from lft.results.aggregate import aggregate

sys.path.append(str(Path(__file__).parents[1]))
from synthetic import report_profile, write_results

STEPS = [aggregate, write_tables, write_claims, write_alternatives, draw_figures, write_page]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_results(report_profile(), folder)
    return folder


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_step(benchmark: BenchmarkFixture, results: Path, step) -> None:
    benchmark.group = "report of three experiments and three seeds"
    benchmark.pedantic(step, args=(report_profile(), results), rounds=2)
