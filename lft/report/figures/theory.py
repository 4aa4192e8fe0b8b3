"""Theorem 1 and the norms of meta-gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator

from lft.report.figures.base import Drawing, Measured, add_legend, decades, plain_number, subplots
from lft.report.style import INK, Look
from lft.report.theory_tests import bound_over_gap, gap_points, sweep

STAGES = {"initial": "initial φ", "halfway": "half-trained φ"}
"""Stages of φ before the trained one."""
QUANTITIES = {
    "gap": Look("gap", INK, ()),
    "variance_part": Look("variance part", "#56B4E9", (5, 2)),
    "fitting_part": Look("fitting part", "#CC79A7", (6, 2, 1, 2)),
    "bound": Look("bound of Theorem 1", "#E69F00", (1, 1)),
}


def gaps(measured: Measured) -> Iterator[Drawing]:
    """Theorem 1: gap, its parts and the bound against |D_tr|, |D_val| and K, a row per
    experiment; the gap also with initial and half-trained φ."""
    points = gap_points(measured.theory)
    if points.empty:
        return
    experiments = list(points["experiment"].unique())
    figure, axes = subplots(len(experiments), 3, share=False)
    for line, experiment in zip(axes, experiments, strict=True):
        panels = _sweeps(points[points["experiment"] == experiment])
        for axis, (varied, data) in zip(line, panels.items(), strict=True):
            for (stage, name), width in zip(STAGES.items(), (0.5, 1.0), strict=True):
                rows = data[data["stage"] == stage]
                label = f"gap, {name}"
                axis.plot(rows[varied], rows["gap"], "s-", ms=2, lw=width, color=INK, label=label)
            best = data[data["stage"] == "best"]
            for quantity, look in QUANTITIES.items():
                axis.plot(
                    best[varied], best[quantity], "o", ms=3, lw=1.6,
                    ls=look.line, color=look.color, label=look.label,
                )  # fmt: skip
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(sorted(data[varied].unique()))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(plain_number)
            decades(axis)
        line[0].set_ylabel(experiment)
    for axis, name in zip(axes[-1], ("|D_tr|", "|D_val|", "fine-tuning steps K"), strict=True):
        axis.set_xlabel(name)
    add_legend(figure, axes)
    yield Drawing(
        "figure-gap",
        "theory",
        "Theorem 1. Norm of the gap between the meta-gradients of LFT and L2O, of its variance and "
        "fitting parts, and the bound, with trained φ; the gap also with initial and half-trained "
        "φ. Means over tasks and seeds, of the fitting part the root of the mean square, missing "
        "where the estimate of that is negative; one of |D_tr|, |D_val| and K varies at a time.",
        _gap_sentences(points),
        figure,
        points,
    )


def vanishing(measured: Measured) -> Iterator[Drawing]:
    """Norms of meta-gradients against K, relative to the smallest K."""
    rows = measured.theory[measured.theory["quantity"] == "meta_gradient_norm"]
    if rows.empty:
        return
    data = _relative(rows)
    experiments = list(data["experiment"].unique())
    figure, axes = subplots(1, len(experiments), width=3.2, share=False)
    for axis, experiment in zip(axes[0], experiments, strict=True):
        for method, line in data[data["experiment"] == experiment].groupby("method", sort=False):
            look = measured.style.method(experiment, str(method))
            axis.plot(
                line["steps"], line["relative"], "o", ms=3,
                color=look.color, ls=look.line, label=look.label,
            )  # fmt: skip
        axis.set(xscale="log", yscale="log", title=experiment, xlabel="fine-tuning steps K")
        axis.set_xticks(sorted(data["steps"].unique()))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(plain_number)
        decades(axis)
    first = data["steps"].min()
    axes[0, 0].set_ylabel(f"meta-gradient norm\nrelative to K = {first}")
    add_legend(figure, axes)
    last = data[data["steps"] == data["steps"].max()]
    alt = "; ".join(
        f"{row.experiment}, {measured.style.method(row.experiment, row.method).label}: "
        f"{row.relative:.2g} times"
        for row in last.itertuples()
    )
    yield Drawing(
        "figure-vanishing",
        "theory",
        "Do meta-gradients vanish? Their norm against the number of fine-tuning steps K, relative "
        f"to K = {first}, second-order terms kept; geometric means over tasks and seeds.",
        f"Norm at K = {data['steps'].max()} over norm at K = {first}. {alt}.",
        figure,
        data,
    )


def _sweeps(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Points of one experiment along |D_tr|, |D_val| and K, the other two at their usual values."""
    usual = {size: points[size].mode().iloc[0] for size in ("support", "query")}
    at_usual = (points["support"] == usual["support"]) & (points["query"] == usual["query"])
    return {
        "support": sweep(points, "support", "query"),
        "query": sweep(points, "query", "support"),
        "steps": points[at_usual].sort_values("steps"),
    }


def _gap_sentences(points: pd.DataFrame) -> str:
    """With trained φ: how the gap changes with |D_tr| and how far the bound lies above it."""
    sentences = []
    for experiment, group in points[points["stage"] == "best"].groupby("experiment", sort=False):
        line = sweep(group, "support", "query")
        first, last = line.iloc[0], line.iloc[-1]
        ratio = bound_over_gap(group)
        sentences.append(
            f"{experiment}: the gap goes from {first['gap']:.2g} at |D_tr| = {first['support']} to "
            f"{last['gap']:.2g} at |D_tr| = {last['support']}; the bound is {ratio.min():.2g} to "
            f"{ratio.max():.2g} times the gap."
        )
    return "With trained φ, " + " ".join(sentences)


def _relative(rows: pd.DataFrame) -> pd.DataFrame:
    """Geometric mean over tasks and seeds of meta-gradient norms, over that at the smallest K."""
    keys = ["experiment", "method", "steps"]
    logs = rows.astype({"experiment": str, "method": str}).assign(log=np.log(rows["value"]))
    data = logs.groupby(keys, sort=False)["log"].mean().reset_index().sort_values(keys)
    first = data.groupby(keys[:2])["log"].transform("first")
    return data.assign(norm=np.exp(data["log"]), relative=np.exp(data["log"] - first)).drop(
        columns="log"
    )
