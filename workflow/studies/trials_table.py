"""What came of the trials of a study: effects between trials, and the page's tables."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from scipy.stats import t

from lft.methods import get_method
from lft.results.trained import Validations, stable, the_end_is_good
from lft.storage.json import read_json

if TYPE_CHECKING:
    from trials import Study


def load_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Load the existing rows: trial -> rows of its seeds, in order."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*-seed*.json")):
        row = read_json(path, trial=str, seed=int, status=str)
        rows.setdefault(row["trial"], []).append(row)
    return rows


PRIMARY = ("accuracy", "asr", "mse")
"""Primary metrics of the families."""


def curve(row: dict[str, Any], stage: str = "best") -> dict[int, float]:
    """Return the primary metric on query sets after each measured step, averaged over families."""
    families = list(row["measured"][stage].values())
    metric = next(name for name in PRIMARY if name in families[0])
    return {
        int(step): statistics.fmean(found[metric][step][0] for found in families)
        for step in families[0][metric]
    }


def beside(row: dict[str, Any], metric: str) -> float:
    """Return another metric after the last step, averaged over families."""
    families = list(row["measured"]["best"].values())
    last = max(families[0][metric], key=int)
    return statistics.fmean(found[metric][last][0] for found in families)


def end(row: dict[str, Any], stage: str = "best") -> float:
    """Return the primary metric after the last step.

    Args:
        row: row of a trial.
        stage: of φ; a row whose last φ is the best holds only ``best``.
    """
    values = curve(row, stage if stage in row["measured"] else "best")
    return values[max(values)]


class Effect(NamedTuple):
    """A trial's difference from another at the last step, paired by seed, with a 95 % t interval.

    For losses the difference is of logarithms, so that mean and interval are ratios; for rates it
    is in points.
    """

    mean: float
    low: float
    high: float
    seeds: int


def effect(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> Effect | None:
    """Compute the effect of one trial against another; None if they share no seed."""
    pairs = [(a, b) for a in rows for b in others if a["seed"] == b["seed"]]
    ends = [[end(row) for row in pair] for pair in pairs]
    if not ends:
        return None
    loss = "mse" in next(iter(pairs[0][0]["measured"]["best"].values()))
    changes = [math.log(a / b) if loss else 100 * (a - b) for a, b in ends]
    mean, n, half = statistics.fmean(changes), len(changes), math.inf
    if n > 1:
        half = statistics.stdev(changes) / n**0.5 * float(t.ppf(0.975, n - 1))
    bounds = (mean, mean - half, mean + half)
    mean, low, high = map(math.exp, bounds) if loss else bounds
    return Effect(mean, low, high, n)


def table(study: Study, rows: dict[str, list[dict[str, Any]]]) -> str:
    """Format the finished trials as Markdown, a table for each experiment."""
    lines: list[str] = []
    for experiment in dict.fromkeys(trial.experiment for trial in study.trials.values()):
        names = [
            n for n, trial in study.trials.items() if trial.experiment == experiment and n in rows
        ]
        if not names:
            continue
        steps = [step for step in curve(rows[names[0]][0]) if step]
        others = study.beside.get(experiment, ())
        head = ["trial", "suspect", "seeds", *map(str, steps), *others, "last φ"]
        head += ["effect", "end good", "stable", "CPU-s"]
        lines += ["", f"**{experiment}**", "", line(head), line(["---"] * len(head))]
        for name in names:
            trial, found = study.trials[name], rows[name]
            hand_designed = get_method(trial.method).learns == "step_size"
            means = [statistics.fmean(curve(row)[step] for row in found) for step in steps]
            effects = ((other, effect(found, rows.get(other, []))) for other in trial.against)
            lines.append(
                line(
                    [
                        f"`{name}`",
                        trial.suspect,
                        str(len(found)),
                        *(f"{mean:.3g}" for mean in means),
                        *(f"{statistics.fmean(beside(r, m) for r in found):.3g}" for m in others),
                        f"{statistics.fmean(end(row, 'last') for row in found):.3g}",
                        "; ".join(f"{_shown(e)} vs `{other}`" for other, e in effects if e),
                        *(["", ""] if hand_designed else _passed(found)),
                        f"{statistics.fmean(row['cpu_seconds'] for row in found):.0f}",
                    ]
                )
            )
    lines += ["", line(["trial", "predicted", "found"]), line(["---"] * 3)]
    lines += [
        line([f"`{name}`", trial.prediction, trial.outcome or "as predicted"])
        for name, trial in study.trials.items()
        if name in rows
    ]
    return "\n".join(lines).strip() + "\n"


def _passed(rows: list[dict[str, Any]]) -> list[str]:
    """Count the seeds that pass the checks for a good end and for stability."""
    columns = ["meta_step", "validation", "error", "outer"]
    histories = [pd.DataFrame(row["training"]["validations"], columns=columns) for row in rows]
    return [
        f"{sum(bool(check(Validations.of(history)).passed) for history in histories)}/{len(rows)}"
        for check in (the_end_is_good, stable)
    ]


def line(cells: list[str]) -> str:
    """Format a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _shown(found: Effect) -> str:
    if found.seeds == 1:
        return f"{found.mean:.2f}"
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def with_table(text: str, made: str) -> str:
    """Replace the table between a page's marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n{END}{rest.split(END)[1]}"
