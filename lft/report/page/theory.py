"""Tables of Theorem 1: where the bound holds, and how the gap falls."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lft.report.statistics import NOTHING, Interval
from lft.report.theory_numbers import (
    FITTED,
    FROZEN,
    bound_table,
    gradient_missing,
)
from lft.report.theory_rates import SWEEPS, rate_table


def bounds(theory: pd.DataFrame) -> list[dict[str, str]]:
    """Return where the bound holds and by what factor, per experiment and stage of φ."""
    missing, rows = gradient_missing(theory), []
    for row in bound_table(theory):
        share = missing.get((row.experiment, row.stage), NOTHING)
        rows.append(
            {
                "experiment": row.experiment,
                "stage": row.stage,
                "holds": f"{row.violations} of {row.points}",
                "factor": " to ".join(map(_plain, row.factors)),
                "variance": _plain(row.over_variance),
                "missing": _percent(share),
                "a1": "fails" if share.low > 0 or share.high < 0 else "not seen to fail",
                "sigma": _plain(row.sigma),
                "jacobian": _plain(row.jacobian),
            }
        )
    return rows


def rates(theory: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """Return exponents of the gap by experiment and stage of φ.

    Each row has the exponents of both series, for both sizes and for each alone.
    """
    rows: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for row in rate_table(theory):
        text = f"{row.slope.mean:.2f}{_plus_minus(row.slope, '.2f')} ({row.of_bound:.2f})"
        rows.setdefault((row.experiment, row.stage), {})[row.series, row.sweep] = text
    columns = [(series, sweep) for series in (FITTED, FROZEN) for sweep in SWEEPS]
    return [
        (*where, [slopes.get(column, "–") for column in columns]) for where, slopes in rows.items()
    ]


def _plus_minus(interval: Interval, spec: str) -> str:
    return "" if np.isnan(interval.low) else f" ± {interval.half_width:{spec}}"


def _plain(value: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.0f}" if 100 <= value < 1e6 else f"{value:.2g}"


def _percent(interval: Interval) -> str:
    if np.isnan(interval.mean):
        return "–"
    # + 0 turns −0 into 0.
    return f"{round(interval.mean, 2) + 0:.0%}" + _plus_minus(interval, ".0%")
