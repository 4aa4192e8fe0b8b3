"""Compare two result folders cell by cell: do they agree?"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lft.errors import UsageError
from lft.metrics import SUPPORT
from lft.report.claims import load_claims
from lft.report.claims.shown import amount
from lft.report.scales import ARRIVAL, Scale, first_full_by_seed
from lft.report.statistics import (
    ALPHA,
    UNBOUNDED,
    Floats,
    Interval,
    holm,
    mean_interval,
    unpaired,
    unpaired_equivalence_p,
)
from lft.results.schema import SUMMARY_COLUMNS
from lft.storage.csv import read_rows
from lft.storage.json import read_json

KEYS = ["experiment", "trained_on", "tested_on", "method", "order", "metric"]
"""Columns that identify a cell and metric."""
PLAIN = Scale(scale="points", better="higher", smallest=0.0, floor="start")
"""Scale of metrics that claims.yaml lacks: differences, without a smallest effect of interest."""


def compare(a: Path, b: Path) -> pd.DataFrame:
    """Compare two result folders by their summary.csv and the image sources in their manifests.

    A cell is compared after the last fine-tuning step that both folders have, on the scale on which
    claims are judged: points, or the logarithm of a ratio. Welch's t test over seeds tests for a
    difference. Two one-sided tests within the smallest effect of interest test for agreement. The
    p-values of each kind are Holm-adjusted over the cells.

    Args:
        a: result folder.
        b: result folder.

    Returns:
        One row per cell and metric: KEYS, ``step``, mean, interval and number of seeds of either
            folder, ``unit`` (``points``, ``ratio``, or ``plain`` without a registered scale),
            ``difference`` (a − b, or the ratio a / b) with its interval, ``p`` and ``verdict``:

        - identical: the same seeds with the same means;
        - differ: p < 0.05 and not negligible;
        - negligible: p < 0.05, but the 90 % interval lies within ± the smallest effect of
          interest;
        - agree: the difference is shown to be smaller than the smallest effect of interest;
        - inconclusive: none of these, or a single seed, equal seeds or diverged tasks;
        - other data: image sources differ, so nothing is tested; ``sources`` names them;
        - only in A, only in B.

    Raises:
        UsageError: a folder has no summary.csv, or the two have no cell in common.
    """
    first, second = _cells(a), _cells(b)
    if not first.keys() & second.keys():
        raise UsageError(f"{a} and {b} have no cell in common; compare runs of similar profiles")
    other = _other_sources(a, b)
    scales = load_claims().metrics
    rows = [
        {
            **dict(zip(KEYS, key, strict=True)),
            **_row(
                key[-1],
                _rows_of(first, key),
                _rows_of(second, key),
                scales.get(key[-1].removesuffix(SUPPORT), PLAIN),
                _named(other, key),
            ),
        }
        for key in dict.fromkeys([*first, *second])
    ]
    frame = pd.DataFrame(rows)
    tested = frame["verdict"] == ""
    for column in ("p", "same"):
        frame.loc[tested, column] = holm(frame.loc[tested, column])
    frame["verdict"] = [row["verdict"] or _verdict(row) for row in frame.to_dict("records")]
    return frame.drop(columns=["same", "within"])


def as_table(frame: pd.DataFrame) -> Table:
    """Format the result of :func:`compare` for a terminal."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n in frame["verdict"].value_counts().items())
    table = Table(title=f"A and B, 95 % intervals over seeds: {counts}")
    for heading in ("cell", "metric", "step", "A", "B", "A − B or A / B", "p (Holm)", "verdict"):
        table.add_column(heading)
    for row in frame.to_dict("records"):
        cell = (
            f"{row['experiment']}: {row['method']}, {row['order']} order, "
            f"{row['trained_on']} to {row['tested_on']}"
        )
        means = [_show(row[n], row[f"{n}_low"], row[f"{n}_high"]) for n in ("a", "b")]
        p = "–" if np.isnan(row["p"]) else f"{row['p']:.2g}"
        texts = (cell, row["metric"], str(row["step"]), *means, _effect(row), p, row["verdict"])
        table.add_row(*map(escape, texts))
    return table


def terminal(table: Table) -> Console:
    """Return a console for a table: as wide as the table, except in a terminal."""
    console = Console()
    if console.is_terminal:
        return console
    wide = Console(width=10_000)
    return Console(width=wide.measure(table).maximum)


def sources_note(frame: pd.DataFrame) -> str:
    """Return the differing image sources in one line; empty if none differ."""
    texts = dict.fromkeys(text for cell in frame["sources"] for text in cell.split("; ") if text)
    return "; ".join(texts)


# ---------------------------------------------------------------- image sources


def _other_sources(a: Path, b: Path) -> dict[tuple[str, str], str]:
    """Find families whose images differ between two folders, and describe the difference.

    A folder without manifests is not compared.
    """
    first, second = dict(_sources(a)), dict(_sources(b))
    return {
        key: f"{key[0]}, {key[1]}: {_text_of(first[key])} in A, {_text_of(second[key])} in B"
        for key in first.keys() & second.keys()
        if first[key] != second[key]
    }


def _sources(folder: Path) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for path in sorted(folder.glob("runs/*/*/*/seed*/run.json")):
        content = read_json(path)
        families = (content.get("settings") or {}).get("families") or {}
        for name, family in families.items():
            if "images" in family:
                yield (str((content.get("run") or {}).get("experiment")), name), family["images"]


def _text_of(images: dict[str, Any]) -> str:
    known = [str(images[key]) for key in ("kind", "name", "path") if images.get(key)]
    return " ".join(known) or json.dumps(images)


def _named(other: dict[tuple[str, str], str], key: tuple[str, ...]) -> str:
    """Describe how the images of a cell differ; empty if they do not."""
    experiment, trained_on, tested_on = key[:3]
    names = dict.fromkeys((*trained_on.split("+"), *tested_on.split("+")))
    return "; ".join(other[experiment, name] for name in names if (experiment, name) in other)


# ---------------------------------------------------------------- cells

Cells = dict[tuple[str, ...], pd.DataFrame]
"""Rows of summary.csv by KEYS."""


def _cells(folder: Path) -> Cells:
    summary = read_rows(folder / "summary.csv", SUMMARY_COLUMNS)
    return {tuple(map(str, key)): rows for key, rows in summary.groupby(KEYS, observed=True)}


def _rows_of(cells: Cells, key: tuple[str, ...]) -> pd.DataFrame | None:
    """Return the rows of a cell; for the first step with ASR 100 %, the rows of the ASR."""
    return cells.get((*key[:-1], "asr") if key[-1] == ARRIVAL else key)


def _row(
    metric: str, a: pd.DataFrame | None, b: pd.DataFrame | None, scale: Scale, other: str
) -> dict[str, Any]:
    """Compute the numbers of one cell; ``verdict`` is empty if the tests decide."""
    steps = [set(rows["step"]) for rows in (a, b) if rows is not None]
    step = int(max(set.intersection(*steps) or {0}))
    of_step = _arrivals if metric == ARRIVAL else _means
    of_a, of_b = of_step(a, step), of_step(b, step)
    scaled_a, scaled_b = _scaled(of_a, scale), _scaled(of_b, scale)
    test = unpaired(scaled_a, scaled_b, "seeds", scale.bounds)
    verdict = ""
    if a is None or b is None:
        verdict = "only in B" if a is None else "only in A"
    elif other:
        verdict = "other data"
    elif of_a.equals(of_b):
        verdict = "identical"
    same = unpaired_equivalence_p(scaled_a, scaled_b, scale.margin)
    return {
        "step": step,
        **_columns("a", mean_interval(of_a, bounds=_range(scale))),
        **_columns("b", mean_interval(of_b, bounds=_range(scale))),
        "unit": "plain" if scale is PLAIN else scale.scale,
        "difference": _back(test.difference.mean, scale),
        "low": _back(test.difference.low, scale),
        "high": _back(test.difference.high, scale),
        "interval": test.difference.kind,
        "p": np.nan if verdict else test.p,
        "same": np.nan if verdict else same,
        "within": same < ALPHA,
        "verdict": verdict,
        "sources": other if verdict == "other data" else "",
    }


def _verdict(row: Mapping[Hashable, Any]) -> str:
    if row["p"] < ALPHA:
        return "negligible" if row["within"] else "differ"
    return "agree" if row["same"] < ALPHA else "inconclusive"


def _means(rows: pd.DataFrame | None, step: int) -> pd.Series[float]:
    """Return the means over test tasks after a step, by seed."""
    if rows is None:
        return pd.Series(dtype=float)
    means: pd.Series[float] = rows[rows["step"] == step].set_index("seed")["mean"]
    return means


def _arrivals(rows: pd.DataFrame | None, last: int) -> pd.Series[float]:
    """Return the first step at which the mean ASR is 100 %, by seed; last + 1 if there is none."""
    if rows is None:
        return pd.Series(dtype=float)
    return first_full_by_seed(rows[rows["step"] <= last]).clip(upper=last + 1)


def _scaled(values: pd.Series[float], scale: Scale) -> Floats:
    numbers: Floats = np.asarray(values, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return numbers if scale.scale == "points" else np.asarray(np.log(numbers))


def _back(difference: float, scale: Scale) -> float:
    return float(difference if scale.scale == "points" else np.exp(difference))


def _range(scale: Scale) -> tuple[float, float]:
    return (0.0, 1.0) if scale.scale == "points" and scale is not PLAIN else UNBOUNDED


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {
        name: interval.mean,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
        f"{name}_seeds": interval.n,
    }


def _effect(row: Mapping[Hashable, Any]) -> str:
    if np.isnan(row["difference"]):
        return "–"
    if row["unit"] == "ratio":
        ends = f" [{row['low']:.3g}, {row['high']:.3g}]" if np.isfinite(row["low"]) else ""
        return amount(row["difference"], "ratio") + ends
    if row["unit"] == "plain":
        return _show(row["difference"], row["low"], row["high"])
    shown = [100 * row[name] for name in ("difference", "low", "high")]
    return _show(*shown) + " points"


def _show(mean: float, low: float, high: float) -> str:
    if np.isnan(mean):
        return "–"
    return f"{mean:.3g}" if np.isnan(low) else f"{mean:.3g} [{low:.3g}, {high:.3g}]"
