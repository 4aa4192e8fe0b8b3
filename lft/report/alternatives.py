"""Effects of choices other than ours: the variants of a profile, each beside its method."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lft.config import Experiment, Profile
from lft.config.experiment import FORMER
from lft.metrics import Metric, metric_of
from lft.paths import kept_alternatives
from lft.report.tables import Numbers
from lft.results.digests import record
from lft.results.schema import ALTERNATIVE_COLUMNS
from lft.storage.csv import read_rows, write_rows


def write_alternatives(profile: Profile, results: Path) -> None:
    """Write alternatives.csv; without rows if the profile has no variants."""
    numbers = Numbers(profile, results)
    rows = [
        row
        for name, experiment in profile.experiments.items()
        for row in _rows(numbers, name, experiment)
    ]
    write_rows(results / "alternatives.csv", ALTERNATIVE_COLUMNS, rows)
    record(results, ["alternatives.csv"])


def _rows(numbers: Numbers, name: str, experiment: Experiment) -> Iterator[tuple[Any, ...]]:
    for key, base in numbers.changes(name, experiment):
        if key == base:
            continue
        variant = experiment.variants.get(key.method)
        settings = json.dumps(variant.set if variant else {})
        for metric in experiment.judged_by:
            key, base = key._replace(metric=metric), base._replace(metric=metric)
            outcome, change = numbers.cell(key), numbers.change(key, base)
            yield (
                *(name, key.trained_on, key.tested_on, key.order, base.method, key.method),
                *(experiment.label(key.method), settings, metric, outcome.step),
                *(numbers.cell(base).interval.mean, outcome.interval.mean),
                *(change.interval.mean, change.interval.low, change.interval.high),
                *(change.interval.kind, change.interval.n),
            )


def found_alternatives(profile: Profile, results: Path) -> dict[str, pd.DataFrame]:
    """Read alternatives.csv of this run and of the profiles that exist for alternatives.

    Returns:
        Profile -> rows of ALTERNATIVE_COLUMNS.
    """
    own = {profile.name: results / "alternatives.csv"}
    return {
        name: read_rows(path, ALTERNATIVE_COLUMNS)
        for name, path in (kept_alternatives(results) | own).items()
    }


def effects(rows: pd.DataFrame, choice: str, methods: list[str]) -> Iterator[str]:
    """Describe the effects of the alternatives to one choice, a sentence each.

    Args:
        rows: rows of alternatives.csv.
        choice: dotted key; a variant is an alternative to the first key that it sets.
        methods: methods that are also alternatives.
    """
    tried = [_tries(row, choice, methods) for row in rows.itertuples()]
    rows = rows[np.array(tried, dtype=bool)]
    keys = ["experiment", "order", "alternative"]
    for _, lines in rows.groupby(keys, sort=False, observed=True):
        changes = ", ".join(_change(row) for row in lines.itertuples())
        first = lines.iloc[0]
        yield f"{first['label']} ({first['experiment']}): {changes}"


def _tries(row: Any, choice: str, methods: list[str]) -> bool:
    """Return whether a row is about an alternative to a choice."""
    settings = list(json.loads(row.settings))
    if not settings:
        return str(row.alternative) in methods
    first = FORMER.get(settings[0], settings[0])
    return f"{first}.".startswith(f"{choice}.")


def _change(row: Any) -> str:
    metric = metric_of(str(row.metric))
    if not np.isfinite(row.difference):
        return f"{metric.label} not measured"
    change = f"{row.difference * metric.factor:+.{metric.decimals}f}"
    if np.isfinite(row.low):
        change += f" ± {(row.high - row.low) / 2 * metric.factor:.{metric.decimals}f}"
    return f"{metric.label} {_shown(row.base, metric)} → {_shown(row.mean, metric)} ({change})"


def _shown(value: float, metric: Metric) -> str:
    return f"{value * metric.factor:.{metric.decimals}f}{metric.unit}"
