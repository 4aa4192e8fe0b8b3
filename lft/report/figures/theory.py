"""Theorem 1 and the norms of meta-gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from lft.report.figures.base import Drawing, Measured, add_legend, decades, plain_number, subplots
from lft.report.style import INK, RULE, Look
from lft.report.theory_numbers import (
    FITTED,
    FROZEN,
    POINT,
    bound_over,
    finite,
    gap_points,
    groups,
    norms,
    tasks,
)
from lft.report.theory_rates import SWEEPS, RateRow, rate_table, scaled, swept

STAGES = {"initial": "initial φ", "halfway": "half-trained φ", "best": "trained φ"}
SERIES = {
    FITTED: Look("gap of LFT and L2O", INK, ()),
    FROZEN: Look("gap of independent sets", "#56B4E9", (5, 2)),
}
"""Looks of the gap and of its counterpart, where D_new, on which nothing is fitted, replaces
D_tr."""
BOUND = Look("bound of Theorem 1", "#E69F00", (1, 1))
VARIED = {"both": "both sizes", "support": "|D_tr|", "query": "|D_val|"}


def gaps(measured: Measured) -> Iterator[Drawing]:
    """Draw Theorem 1, a row per experiment.

    The panels show gap over bound of every task, the fall of the gap with |D|, the exponents, and
    the growth of the gap with K.
    """
    points = gap_points(measured.theory)
    if points.empty:
        return
    table = tasks(measured.theory, "gap", "bound")
    slopes, falls = rate_table(measured.theory), _falls(measured.theory)
    experiments = list(points["experiment"].unique())
    figure, axes = subplots(len(experiments), 4, share=False)
    for line, experiment in zip(axes, experiments, strict=True):
        _ratios(line[0], table[table["experiment"] == experiment])
        trained = points[(points["experiment"] == experiment) & (points["stage"] == "best")]
        _sizes(line[1], falls[falls["experiment"] == experiment])
        of_trained = [row for row in slopes if (row.experiment, row.stage) == (experiment, "best")]
        _exponents(line[2], of_trained)
        _steps(line[3], trained[trained["method"] == FITTED])
        line[0].set_ylabel(experiment)
    heads = ("gap / bound, all tasks", "gap / (G σ)", "exponent of |D|, trained φ", "gap")
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head)
    for axis, name in zip(axes[-1], ("φ", "|D_tr| = |D_val|", "", "steps K"), strict=True):
        axis.set_xlabel(name)
    add_legend(figure, axes)
    yield Drawing(
        "figure-gap",
        "theory",
        "Theorem 1, under our reading of the lost formula. Left to right: the gap between the "
        "meta-gradients of LFT and L2O over its bound, median, quartiles and extremes of all tasks "
        "and points; means over tasks and seeds of gap / (G σ) against the sizes of the sets, "
        "trained φ; the exponents with 95 % t intervals over seeds, beside those of the bound; and "
        "the gap against K. A bound does not say that the gap falls as fast as it does.",
        _sentences(table, slopes),
        figure,
        points.merge(falls.drop(columns="decay"), how="left"),
    )


def _ratios(axis: Axes, table: pd.DataFrame) -> None:
    """Draw boxes of gap / bound by stage; the bound fails above the line at 1."""
    known = table[finite(table, "gap", "bound") & (table["gap"] > 0) & (table["bound"] > 0)]
    by_stage = {
        label: (group["gap"] / group["bound"]).to_numpy()
        for stage, label in STAGES.items()
        if len(group := known[known["stage"] == stage])
    }
    axis.boxplot(
        list(by_stage.values()), whis=(0, 100), widths=0.5,
        tick_labels=[label.removesuffix(" φ") for label in by_stage],
        medianprops={"color": INK}, boxprops={"color": INK}, whiskerprops={"color": INK},
        capprops={"color": INK},
    )  # fmt: skip
    axis.axhline(1, color=BOUND.color, ls=BOUND.line, lw=1.6)
    axis.set_yscale("log")
    decades(axis)


def _falls(theory: pd.DataFrame) -> pd.DataFrame:
    """Average gap / (G σ) over tasks and seeds at trained φ, where both sizes are equal.

    Returns:
        Columns experiment, :data:`POINT`, ``ratio`` and ``decay``, see :func:`scaled`.
    """
    keys, found = ["experiment", *POINT], []
    for series in SERIES:
        quantity = "gap" if series == FITTED else "variance_part"
        table = tasks(theory, quantity, "bound")
        trained = table[(table["stage"] == "best") & (table["method"] == series)]
        for _, group in groups(trained, "experiment"):
            kept, _ = scaled(swept(group, "both"), quantity)
            found.append(kept.groupby(keys, as_index=False)[["ratio", "decay"]].mean())
    means = pd.concat(found) if found else pd.DataFrame(columns=[*keys, "ratio", "decay"])
    return means.astype(dict.fromkeys(("steps", "support", "query"), int))


def _sizes(axis: Axes, falls: pd.DataFrame) -> None:
    """Draw gap / (G σ) against |D| with both sizes equal, and the bound."""
    for series, look in SERIES.items():
        chosen = falls[falls["method"] == series].sort_values("support")
        axis.plot(
            chosen["support"], chosen["ratio"], "o", ms=3, lw=1.6, ls=look.line, color=look.color,
            label=look.label,
        )  # fmt: skip
        if series == FITTED:
            axis.plot(
                chosen["support"], chosen["decay"], lw=1.6, ls=BOUND.line, color=BOUND.color,
                label=BOUND.label,
            )  # fmt: skip
    _log_log(axis, sorted(falls["support"].unique()))


def _exponents(axis: Axes, rows: list[RateRow]) -> None:
    """Draw exponents with their intervals, and the bound's."""
    for row in rows:
        look, place = SERIES[row.series], SWEEPS.index(row.sweep)
        place_of_series = place + (0.15 if row.series == FROZEN else -0.15)
        half = np.nan_to_num(row.slope.half_width)
        axis.errorbar(row.slope.mean, place_of_series, xerr=half, fmt="o", ms=3, color=look.color)
        axis.plot(row.of_bound, place_of_series, "|", ms=9, mew=1.6, color=BOUND.color)
    axis.set_yticks(range(len(SWEEPS)), [VARIED[sweep] for sweep in SWEEPS])
    axis.set_ylim(len(SWEEPS) - 0.5, -0.5)
    axis.axvline(0, color=RULE, lw=0.8)


def _steps(axis: Axes, points: pd.DataFrame) -> None:
    """Draw the gap against K, at the sizes where K varies."""
    if points.empty:
        return
    _, line = max(groups(points, "support", "query"), key=lambda group: group[1]["steps"].nunique())
    line = line.sort_values("steps")
    look = SERIES[FITTED]
    axis.plot(line["steps"], line["gap"], "o", ms=3, lw=1.6, ls=look.line, color=look.color)
    _log_log(axis, sorted(line["steps"]))


def vanishing(measured: Measured) -> Iterator[Drawing]:
    """Draw norms of each task's meta-gradient against K, relative to the smallest K.

    There is a row for initial and one for trained meta-parameters.
    """
    data = _spread(norms(measured.theory))
    if data.empty:
        return
    experiments, stages = (list(data[name].unique()) for name in ("experiment", "stage"))
    figure, axes = subplots(len(stages), len(experiments), width=3.2, share=False)
    for line, stage in zip(axes, stages, strict=True):
        for axis, experiment in zip(line, experiments, strict=True):
            chosen = data[(data["stage"] == stage) & (data["experiment"] == experiment)]
            for method, rows in groups(chosen, "method"):
                look = measured.style.method(experiment, *method)
                axis.plot(
                    rows["steps"], rows["median"], "o", ms=3,
                    color=look.color, ls=look.line, label=look.label,
                )  # fmt: skip
                axis.fill_between(
                    rows["steps"], rows["low"], rows["high"], color=look.color, alpha=0.15, lw=0
                )
            axis.set_title(f"{experiment}, {STAGES.get(stage, stage)}")
            _log_log(axis, sorted(chosen["steps"].unique()))
    first, last = data["steps"].min(), data["steps"].max()
    for axis in axes[:, 0]:
        axis.set_ylabel(f"norm relative to K = {first}")
    for axis in axes[-1]:
        axis.set_xlabel("fine-tuning steps K")
    add_legend(figure, axes)
    sentences = (
        f"{row.experiment}, {STAGES.get(row.stage, row.stage)}, "
        f"{measured.style.method(row.experiment, row.method).label}: {row.median:.2g} times "
        f"({row.low:.2g} to {row.high:.2g})"
        + (f", {row.left_out} tasks left out" if row.left_out else "")
        for row in data[data["steps"] == last].itertuples()
    )
    yield Drawing(
        "figure-vanishing",
        "theory",
        "Do meta-gradients vanish or explode? The norm of each task's meta-gradient against the "
        f"number of fine-tuning steps K, relative to that at K = {first}, second-order terms kept: "
        "the median and the range over the tasks of all seeds. At the initial parameters nothing "
        "has been trained; at trained ones small norms also mean that training has converged.",
        f"Norm at K = {last} over norm at K = {first}, median and range over tasks. "
        + "; ".join(sentences)
        + ".",
        figure,
        data,
    )


def _spread(relative: pd.DataFrame) -> pd.DataFrame:
    """Compute the median and range over tasks of norms relative to the smallest K.

    ``left_out`` counts values that are not positive numbers.
    """
    rows = []
    for where, group in groups(relative, "experiment", "stage", "method", "steps"):
        known = group.loc[finite(group, "relative") & (group["relative"] > 0), "relative"]
        left_out = len(group) - len(known)
        rows.append((*where, known.median(), known.min(), known.max(), len(known), left_out))
    columns = ["experiment", "stage", "method", "steps", "median", "low", "high", "n", "left_out"]
    data = pd.DataFrame(rows, columns=columns)
    return data.sort_values(
        columns[:4],
        key=lambda column: column.map(list(STAGES).index) if column.name == "stage" else column,
        kind="stable",
    )


def _sentences(table: pd.DataFrame, slopes: list[RateRow]) -> str:
    """Describe the violations of the bound, its looseness, and the exponents."""
    sentences = []
    for (experiment,), group in groups(table[finite(table, "gap", "bound")], "experiment"):
        above = int((group["gap"] > group["bound"]).sum())
        factor = bound_over(group, "gap")
        sentences.append(
            f"{experiment}: {above} of {len(group)} gaps are above the bound, which is "
            f"{factor.min():.2g} to {factor.max():.2g} times the gap."
        )
        for series, look in SERIES.items():
            exponents = ", ".join(
                f"{VARIED[row.sweep]} {row.slope.mean:.2f} ({row.of_bound:.2f})"
                for row in slopes
                if (row.experiment, row.stage, row.series) == (experiment, "best", series)
            )
            if exponents:
                sentences.append(f"Exponents of the {look.label} (of the bound): {exponents}.")
    return " ".join(sentences)


def _log_log(axis: Axes, ticks: list[int]) -> None:
    axis.set(xscale="log", yscale="log")
    axis.set_xticks(ticks)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(plain_number)
    decades(axis)
    low, high = axis.get_ylim()
    if high > 1e4 * low:
        axis.yaxis.set_major_locator(LogLocator())
