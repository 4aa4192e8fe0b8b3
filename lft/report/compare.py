"""Two result folders side by side, cell by cell: do they agree?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from rich.markup import escape
from rich.table import Table

from lft.errors import UsageError
from lft.report.statistics import Interval, holm, mean_interval, unpaired
from lft.results.records import SUMMARY_COLUMNS, read_rows

KEYS = ["experiment", "trained_on", "tested_on", "method", "order", "metric"]
ALPHA = 0.05


def compare(a: Path, b: Path) -> pd.DataFrame:
    """Compare the measurements of two result folders; nothing else in them is read.

    A cell is compared after the last fine-tuning step that both folders have, by Welch's t test of
    the means over seeds, its p-values adjusted by Holm across the cells.

    Returns:
        One row per cell and metric: KEYS, ``step``, mean, interval and number of seeds of either
        folder, ``difference`` (a − b) with its interval, ``p`` and ``verdict``:

        - identical: the same seeds with the same means;
        - agree: the difference's 95 % interval contains 0 (its length says how much that means);
        - differ: it does not, and p < 0.05;
        - may differ: it does not, which among so many cells may be chance;
        - inconclusive: one seed only, equal seeds, diverged tasks, or other numbers of steps;
        - only in A, only in B.

    Raises:
        UsageError: a folder has no summary.csv, or the two have no cell in common.
    """
    first, second = _cells(a), _cells(b)
    if not first.keys() & second.keys():
        raise UsageError(f"{a} and {b} have no cell in common; compare runs of like profiles")
    rows = [
        {**dict(zip(KEYS, key, strict=True)), **_row(first.get(key), second.get(key))}
        for key in dict.fromkeys([*first, *second])
    ]
    frame = pd.DataFrame(rows)
    frame["p"] = holm(frame["p"])
    apart = (frame["low"] > 0) | (frame["high"] < 0)
    tested = np.where(apart, np.where(frame["p"] < ALPHA, "differ", "may differ"), "agree")
    frame["verdict"] = frame["verdict"].where(frame["verdict"] != "", tested)
    return frame


def as_table(frame: pd.DataFrame) -> Table:
    """The outcome of :func:`compare` for a terminal."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n in frame["verdict"].value_counts().items())
    table = Table(title=f"A and B, 95 % intervals over seeds: {counts}")
    for heading in ("cell", "metric", "step", "A", "B", "A − B", "p (Holm)", "verdict"):
        table.add_column(heading)
    for row in frame.to_dict("records"):
        cell = (
            f"{row['experiment']}: {row['method']}, {row['order']} order, "
            f"{row['trained_on']} to {row['tested_on']}"
        )
        intervals = [
            _show(row[name], row[f"{prefix}low"], row[f"{prefix}high"])
            for name, prefix in (("a", "a_"), ("b", "b_"), ("difference", ""))
        ]
        p = "–" if np.isnan(row["p"]) else f"{row['p']:.2g}"
        texts = (cell, row["metric"], str(row["step"]), *intervals, p, row["verdict"])
        table.add_row(*map(escape, texts))
    return table


def _cells(folder: Path) -> dict[tuple[str, ...], pd.DataFrame]:
    summary = read_rows(folder / "summary.csv", SUMMARY_COLUMNS)
    return {tuple(map(str, key)): rows for key, rows in summary.groupby(KEYS, observed=True)}


def _row(a: pd.DataFrame | None, b: pd.DataFrame | None) -> dict[str, object]:
    """One cell's numbers; ``verdict`` is empty where the p-value decides."""
    steps = [set(rows["step"]) for rows in (a, b) if rows is not None]
    step = int(max(set.intersection(*steps) or {0}))
    of_a, of_b = _at(a, step), _at(b, step)
    test = unpaired(of_a, of_b, unit="seeds")
    verdict = ""
    if a is None or b is None:
        verdict = "only in B" if a is None else "only in A"
    elif of_a.equals(of_b):
        verdict = "identical"
    elif np.isnan(test.p):
        verdict = "inconclusive"
    return {
        "step": step,
        **_columns("a", mean_interval(of_a)),
        **_columns("b", mean_interval(of_b)),
        "difference": test.difference.mean,
        "low": test.difference.low,
        "high": test.difference.high,
        "interval": test.difference.kind,
        "p": np.nan if verdict else test.p,
        "verdict": verdict,
    }


def _at(rows: pd.DataFrame | None, step: int) -> pd.Series[float]:
    """Means over test tasks after a step, by seed; without the seeds that never had ASR 100 %."""
    if rows is None:
        return pd.Series(dtype=float)
    rows = rows[rows["step"] == step]
    means: pd.Series[float] = rows.set_index("seed")["mean"]
    return means.dropna() if (rows["metric"] == "first_full").all() else means


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {
        name: interval.mean,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
        f"{name}_seeds": interval.n,
    }


def _show(mean: float, low: float, high: float) -> str:
    if np.isnan(mean):
        return "–"
    return f"{mean:.3g}" if np.isnan(low) else f"{mean:.3g} [{low:.3g}, {high:.3g}]"
