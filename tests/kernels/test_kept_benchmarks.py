"""docs/performance.md shows what results/benchmarks keeps, and what moved is said."""

from __future__ import annotations

from tests.benchmarks import kept


def test_the_pages_tables_are_the_kept_numbers() -> None:
    page = kept.PAGE.read_text()
    assert kept.page_with_tables(page) == page


def test_ratios_that_move_are_named() -> None:
    """A machine that is twice as slow moves none; a competitor that gains a fifth moves one."""
    old = {"step": {"native": 1.0, "plain": 4.0, "loop": 8.0}, "gone": {"native": 1.0}}
    slower = {"step": {"native": 2.0, "plain": 8.0, "loop": 16.1}}
    assert not kept.moved(old, slower)
    slower["step"]["plain"] = 6.4
    assert kept.moved(old, slower) == ["step: plain 4.00x, now 3.20x"]


def test_medians_are_read_by_group_and_competitor() -> None:
    report = {
        "benchmarks": [
            {"name": "test_step[8-10-native]", "group": "step", "stats": {"median": 0.5}},
            {"name": "test_step[8-10-plain]", "group": "step", "stats": {"median": 2.0}},
        ]
    }
    assert kept.medians(report) == {"step": {"native": 0.5, "plain": 2.0}}
