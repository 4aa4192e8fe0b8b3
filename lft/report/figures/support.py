"""Metrics against the size of the support set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from lft.config import Experiment
from lft.metrics import metric_of
from lft.report.figures.base import (
    PAPER_STEP,
    Drawing,
    Measured,
    add_legend,
    noted,
    plain_number,
    rows_with,
    subplots,
)
from lft.report.statistics import mean_interval
from lft.report.style import Style


def support_sizes(measured: Measured) -> Iterator[Drawing]:
    """Draw metrics against the support set's size, after the paper's steps and after all.

    This needs an experiment whose test families differ only in that size.
    """
    for name, experiment in measured.profile.experiments.items():
        sizes = _support_sizes(experiment)
        testing = experiment.testing
        steps = list(dict.fromkeys((testing.written(PAPER_STEP), testing.steps)))
        keys = [(row, step) for row in experiment.train_on for step in steps]
        data = _by_size(measured.summary, name, experiment, sizes, steps)
        if not sizes or data.empty:
            continue
        metrics = experiment.judged_by
        figure, axes = subplots(len(metrics), len(keys), share=False)
        for line, metric in zip(axes, metrics, strict=True):
            for axis, (trained_on, step) in zip(line, keys, strict=True):
                shown = {"trained_on": trained_on, "step": step, "metric": metric}
                _points(axis, rows_with(data, shown), measured.style, name)
                axis.set_xscale("log")
                axis.set_xticks(sorted(sizes.values()))
                axis.xaxis.set_minor_locator(NullLocator())
                axis.xaxis.set_major_formatter(plain_number)
                if metric_of(metric).share:
                    axis.set_ylim(-0.02, 1.02)
            line[0].set_ylabel(metric_of(metric).label)
        for axis, (trained_on, step) in zip(axes[0], keys, strict=True):
            axis.set_title(
                f"trained on {measured.style.mixture(name, trained_on)},\nafter {step} steps"
            )
        for axis in axes[-1]:
            axis.set_xlabel("support images per class")
        add_legend(figure, axes)
        caption = (
            f"{experiment.title}: {' and '.join(metric_of(m).label for m in metrics)} on the "
            "query set against the size of the support set of testing. Means over "
            f"{testing.tasks} test tasks and seeds, bars are 95 % t intervals over seeds."
        )
        yield Drawing(
            f"figure-{name}-sizes",
            "figures",
            noted(caption, measured.style, name),
            _at_sizes(data, measured.style, name, experiment.primary),
            figure,
            data,
        )


def _support_sizes(experiment: Experiment) -> dict[str, int]:
    """Return the test families' support sizes, if at least three differ and nothing else does."""
    families = {name: experiment.families[name] for name in experiment.test_on if "+" not in name}
    rest = [f.model_dump(exclude={"support", "label"}) for f in families.values()]
    sizes = {name: getattr(family, "support", 0) for name, family in families.items()}
    alike = all(settings == rest[0] for settings in rest)
    return sizes if alike and len(set(sizes.values())) >= 3 else {}


def _by_size(
    summary: pd.DataFrame,
    name: str,
    experiment: Experiment,
    sizes: dict[str, int],
    steps: list[int],
) -> pd.DataFrame:
    """Compute mean and interval over seeds by support size, for the metrics and steps shown."""
    rows = rows_with(summary, {"experiment": name, "order": experiment.orders[0]})
    rows = rows[rows["step"].isin(steps) & rows["metric"].isin(experiment.judged_by)]
    rows = rows[rows["tested_on"].isin(list(sizes))].astype({"tested_on": str})
    rows = rows.assign(support=rows["tested_on"].map(sizes).astype(int))
    keys = ["trained_on", "method", "metric", "step", "support"]
    intervals = [
        (*key, interval.mean, interval.low, interval.high, interval.n)
        for key, means in rows.groupby(keys, sort=True, observed=True)["mean"]
        for interval in [mean_interval(means)]
    ]
    return pd.DataFrame(intervals, columns=[*keys, "mean", "low", "high", "seeds"])


def _points(axis: Axes, data: pd.DataFrame, style: Style, name: str) -> None:
    """Draw a line per method through its means, with bars for their intervals."""
    for method in style.profile.experiment(name).methods:
        line = data[data["method"] == method]
        look = style.method(name, method)
        bars = [line["mean"] - line["low"], line["high"] - line["mean"]]
        axis.errorbar(
            line["support"], line["mean"], yerr=np.nan_to_num(np.array(bars)), fmt="o", ms=3,
            color=look.color, ls=look.line, lw=1.4, elinewidth=0.6, capsize=1.5, label=look.label,
        )  # fmt: skip


def _at_sizes(data: pd.DataFrame, style: Style, name: str, metric: str) -> str:
    """Describe the metric with the smallest and the largest support set."""
    rows = rows_with(data, {"metric": metric, "step": data["step"].max()})
    ends = rows[rows["support"].isin([rows["support"].min(), rows["support"].max()])]
    parts = [
        f"{style.method(name, str(method)).label} trained on {style.mixture(name, str(mixture))} "
        + " and ".join(f"{row.mean:.3g} with {row.support}" for row in lines.itertuples())
        for (mixture, method), lines in ends.groupby(["trained_on", "method"], sort=False)
    ]
    return (
        f"{metric_of(metric).label} after {data['step'].max()} steps, by support images per "
        f"class: {'; '.join(parts)}."
    )
