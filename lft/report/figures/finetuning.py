"""Fine-tuning curves: Figures 2, 3, 4 and A1, and those of other experiments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lft.config import Experiment
from lft.metrics import metric_of
from lft.report.claims import load_paper
from lft.report.figures.base import (
    PAPER_STEP,
    Drawing,
    Measured,
    add_legend,
    decades,
    noted,
    rows_with,
    subplots,
)
from lft.report.style import ORDERS, Style

PAPER_EXPERIMENTS = ("attack", "classification", "sine")
"""Experiments with figures in the paper."""


class Panel(NamedTuple):
    """One cell of a grid of fine-tuning curves."""

    trained_on: str
    tested_on: str
    order: str


def success_rate(measured: Measured) -> Iterator[Drawing]:
    """Draw Figure 2; rows are training mixtures, columns test mixtures."""
    yield from _attack_grid(measured, "figure-2", "asr", "Figure 2. Attack success rate")


def distortion(measured: Measured) -> Iterator[Drawing]:
    """Draw Figure A1: the same grid for the distortion."""
    yield from _attack_grid(measured, "figure-a1", "distortion", "Figure A1. Distortion, mean |δ|")


def accuracy(measured: Measured) -> Iterator[Drawing]:
    """Draw Figure 3: trained on the largest mixture, with a panel per single source."""
    experiment = measured.profile.experiments.get("classification")
    if experiment:
        trained_on = max(experiment.train_on, key=lambda mixture: mixture.count("+"))
        single = [name for name in experiment.test_on if "+" not in name]
        panels = [[Panel(trained_on, name, experiment.orders[0]) for name in single]]
        title = (
            "Figure 3. Few-shot accuracy, trained on "
            f"{measured.style.mixture('classification', trained_on)}"
        )
        yield from grid(measured, "figure-3", "classification", "accuracy", title, panels)


def regression(measured: Measured) -> Iterator[Drawing]:
    """Draw Figure 4: first order left, zeroth order right; logarithmic."""
    experiment = measured.profile.experiments.get("sine")
    if experiment:
        mixtures = experiment.train_on[0], experiment.test_on[0]
        panels = [[Panel(*mixtures, order) for order in experiment.orders]]
        title = "Figure 4. Mean squared error of sine regression"
        yield from grid(measured, "figure-4", "sine", "mse", title, panels)


def others(measured: Measured) -> Iterator[Drawing]:
    """Draw the judged metrics of experiments that the paper lacks; rows are training mixtures."""
    for name, experiment in measured.profile.experiments.items():
        if name not in PAPER_EXPERIMENTS:
            panels = [
                [Panel(row, column, experiment.orders[0]) for column in experiment.test_on]
                for row in experiment.train_on
            ]
            for metric in experiment.judged_by:
                id = f"figure-{name}" + f"-{metric}" * (metric != experiment.primary)
                title = f"{experiment.title}. {metric_of(metric).label}"
                yield from grid(measured, id, name, metric, title, panels)


def horizons(measured: Measured) -> Iterator[Drawing]:
    """Draw the curves of variants that are meta-trained on other numbers of steps.

    They are in the first mixtures of each experiment.
    """
    for name, experiment in measured.profile.experiments.items():
        trained = _trained_steps(experiment)
        metrics = experiment.judged_by
        panel = Panel(experiment.train_on[0], experiment.test_on[0], experiment.orders[0])
        data = pd.concat(_select(measured.curves, name, m, [[panel]]) for m in metrics)
        data = data[data["method"].isin(list(trained))]
        if data.empty:
            continue
        data = data.assign(trained_steps=data["method"].astype(str).map(trained))
        figure, axes = subplots(1, len(metrics), width=3.2, height=2.3, share=False)
        shades = _shades(sorted(set(trained.values())))
        for axis, metric in zip(axes[0], metrics, strict=True):
            lines = rows_with(data, {"metric": metric})
            for method, k in trained.items():
                line = rows_with(lines, {"method": method})
                look = measured.style.method(name, experiment.base_method(method).name)
                label = f"{look.label}, trained on {k} steps"
                axis.plot(line["step"], line["mean"], color=shades[k], ls=look.line, label=label)
                at = line[line["step"] == k]
                axis.plot(at["step"], at["mean"], "o", ms=4, color=shades[k])
            axis.set(xlabel="fine-tuning steps of testing", ylabel=metric_of(metric).label)
            if metric_of(metric).share:
                axis.set_ylim(-0.02, 1.02)
        add_legend(figure, axes)
        last = rows_with(data, {"metric": experiment.primary, "step": data["step"].max()})
        ends = "; ".join(
            f"trained on {row.trained_steps} steps {row.mean:.3g}" for row in last.itertuples()
        )
        caption = (
            f"{experiment.title}: as many meta-training tasks fine-tuned for fewer or more steps. "
            "Means over test tasks and seeds; a dot where the steps of meta-training end."
        )
        yield Drawing(
            f"figure-{name}-horizons",
            "figures",
            noted(caption, measured.style, name),
            f"{metric_of(experiment.primary).label} after {data['step'].max()} steps: {ends}.",
            figure,
            data,
        )


def _attack_grid(measured: Measured, id: str, metric: str, title: str) -> Iterator[Drawing]:
    experiment = measured.profile.experiments.get("attack")
    if experiment:
        panels = [
            [Panel(row, column, experiment.orders[0]) for column in experiment.test_on]
            for row in experiment.train_on
        ]
        yield from grid(measured, id, "attack", metric, title, panels)


def grid(
    measured: Measured, id: str, name: str, metric: str, title: str, panels: list[list[Panel]]
) -> Iterator[Drawing]:
    """Draw a panel of fine-tuning curves per cell; nothing if nothing was measured.

    A panel has a line per method, ± 1 standard deviation shaded, and open markers for the paper's
    printed values.

    Args:
        measured: the result folder.
        id: name of the files.
        name: name of the experiment.
        metric: metric to draw.
        title: start of the caption.
        panels: cells by row and column.
    """
    style, experiment = measured.style, measured.profile.experiments[name]
    data = _select(measured.curves, name, metric, panels)
    if data.empty:
        return
    figure, axes = subplots(len(panels), len(panels[0]))
    marked = False
    for line, row in zip(axes, panels, strict=True):
        for axis, panel in zip(line, row, strict=True):
            _lines(axis, _cell(data, panel), style, name)
            marked |= _paper_values(axis, panel, style, name, metric, data["step"].max())
    for axis, panel in zip(axes[0], panels[0], strict=True):
        several = len(experiment.orders) > 1
        tested_on = f"tested on\n{style.mixture(name, panel.tested_on)}"
        axis.set_title(ORDERS[panel.order] if several else tested_on)
    for axis, row in zip(axes[:, 0], panels, strict=True):
        trained_on = f"trained on\n{style.mixture(name, row[0].trained_on)}"
        axis.set_ylabel(
            trained_on if len(panels) > 1 else title.split(". ")[1].split(",")[0].split(" of ")[0]
        )
    if metric_of(metric).log:
        _logarithmic(axes, data)
    for axis in axes[-1]:
        axis.set_xlabel("fine-tuning steps")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    add_legend(figure, axes)
    caption = (
        f"{title}, against fine-tuning steps"
        + ("; rows: trained on, columns: tested on" if len(panels) > 1 else "")
        + ". Means over test tasks and seeds, shaded ± 1 standard deviation over both."
        + (" Open circles: the paper's printed values" * marked)
        + (", at the right edge where the steps differ." * marked)
    )
    yield Drawing(
        id, "figures", noted(caption, style, name), _last_values(data, style, name), figure, data
    )


def _select(frame: pd.DataFrame, name: str, metric: str, panels: list[list[Panel]]) -> pd.DataFrame:
    """Return the rows of an experiment and metric that the panels show, in the panels' order."""
    rows = rows_with(frame, {"experiment": name, "metric": metric})
    shown = [_cell(rows, panel) for line in panels for panel in line]
    return pd.concat(shown).reset_index(drop=True)


def _cell(data: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    return rows_with(data, panel._asdict())


def _lines(axis: Axes, cell: pd.DataFrame, style: Style, experiment: str) -> None:
    for method in style.profile.experiment(experiment).methods:
        line = cell[cell["method"] == method].sort_values("step")
        if line.empty:
            continue
        look = style.method(experiment, method)
        axis.plot(
            line["step"], line["mean"], color=look.color, ls=look.line, lw=1.4, label=look.label
        )
        low, high = line["mean"] - line["std"], line["mean"] + line["std"]
        if metric_of(line["metric"].iloc[0]).log:
            low = low.clip(lower=line["mean"] / 10)
        axis.fill_between(line["step"], low, high, color=look.color, alpha=0.12, lw=0)
    if not cell.empty and metric_of(cell["metric"].iloc[0]).share:
        axis.set_ylim(-0.02, 1.02)


def _paper_values(
    axis: Axes, panel: Panel, style: Style, experiment: str, metric: str, last: int
) -> bool:
    """Mark the paper's printed values, except misprints, and return whether there are any.

    They are at their step if it is known and was reached, otherwise beside the right edge.
    """
    paper, marked = load_paper(), False
    for method in style.profile.experiment(experiment).methods:
        printed = paper.get((panel.trained_on, panel.tested_on, method, metric))
        if printed is None or printed["note"]:
            continue
        at_step = printed["table"] == "1" and last >= PAPER_STEP
        axis.plot(
            PAPER_STEP if at_step else 1.03,
            float(printed["value"]),
            "o",
            mfc="none",
            ms=4.5,
            color=style.method(experiment, method).color,
            clip_on=False,
            transform=axis.transData if at_step else axis.get_yaxis_transform(),
        )
        marked = True
    return marked


def _logarithmic(axes: NDArray[Any], data: pd.DataFrame) -> None:
    """Make the y-axes logarithmic, up to three times the mean before the first step.

    A line that leaves the axes diverges.
    """
    means = data["mean"][data["mean"] > 0]
    for axis in axes.flat:
        axis.set_yscale("log")
        axis.set_ylim(means.min() / 2, 3 * data["mean"][data["step"] == 0].max())
        decades(axis)


def _last_values(data: pd.DataFrame, style: Style, experiment: str) -> str:
    """Describe each method's mean in every cell at the last step."""
    last = data[data["step"] == data["step"].max()]
    parts = []
    for keys, rows in last.groupby(list(Panel._fields), observed=True, sort=False):
        panel = Panel(*map(str, keys))
        values = ", ".join(
            f"{style.method(experiment, str(row.method)).label} {row.mean:.3g}"
            for row in rows.itertuples()
        )
        parts.append(
            f"trained on {style.mixture(experiment, panel.trained_on)}, tested on "
            f"{style.mixture(experiment, panel.tested_on)}, {ORDERS[panel.order]}: {values}"
        )
    return f"After {data['step'].max()} steps, " + "; ".join(parts) + "."


def _trained_steps(experiment: Experiment) -> dict[str, int]:
    """Return the meta-training steps of variants that change them, and of their methods."""
    changed = [n for n, variant in experiment.variants.items() if "training.steps" in variant.set]
    names = dict.fromkeys([*(experiment.variants[n].method for n in changed), *changed])
    steps = {name: experiment.for_method(name).training.steps for name in names}
    return dict(sorted(steps.items(), key=lambda item: item[1]))


def _shades(values: list[int]) -> dict[int, Any]:
    """Return a colour for each value, from dark to bright."""
    return dict(
        zip(values, mpl.colormaps["viridis"](np.linspace(0.1, 0.8, len(values))), strict=True)
    )
