"""Meta-validation scores during meta-training."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from lft.report.figures.base import Drawing, Measured, add_legend, noted, rows_with, subplots
from lft.report.style import ORDERS
from lft.results.history import read_history


def histories(measured: Measured) -> Iterator[Drawing]:
    """Draw the meta-validation score during meta-training, a line per method and seed."""
    data = _validations(measured)
    if data.empty:
        return
    keys = ["experiment", "trained_on", "order"]
    panels = list(data[keys].drop_duplicates().itertuples(index=False, name=None))
    columns = min(3, len(panels))
    figure, axes = subplots(-(-len(panels) // columns), columns, share=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        rows = rows_with(data, dict(zip(keys, panel, strict=True)))
        for (method, _), line in rows.groupby(["method", "seed"], sort=False):
            look = measured.style.method(panel[0], str(method))
            axis.plot(
                line["share"], line["validation"],
                color=look.color, ls=look.line, lw=0.9, label=look.label,
            )  # fmt: skip
        several = len(measured.profile.experiment(panel[0]).orders) > 1
        axis.set_title(
            f"{panel[0]}{f', {ORDERS[panel[2]]}' if several else ''}\n"
            f"{measured.style.mixture(panel[0], panel[1])}"
        )
    for axis in axes.flat[max(0, len(panels) - columns) : len(panels)]:
        axis.set_xlabel("share of meta-training")
    for axis in axes[:, 0]:
        axis.set_ylabel("meta-validation score")
    add_legend(figure, axes)
    best = data.groupby(["experiment", "method"], sort=False)["validation"].min().reset_index()
    alt = "; ".join(
        f"{experiment}, {measured.style.method(experiment, method).label} {loss:.3g}"
        for experiment, method, loss in best.itertuples(index=False, name=None)
    )
    yield Drawing(
        "figure-training",
        "training",
        noted(
            "Meta-validation score during meta-training (error rate of classifiers, loss of other "
            "tasks, over all steps), a line per seed. The lowest point is kept.",
            measured.style,
            *measured.profile.experiments,
        ),
        f"Smallest meta-validation score: {alt}.",
        figure,
        data.drop(columns="share"),
    )


def _validations(measured: Measured) -> pd.DataFrame:
    """Return all runs' meta-validation scores; ``share`` is the progress from 0 to 1."""
    frames = []
    for name in measured.profile.experiments:
        for run in measured.profile.runs(name):
            path = measured.results / run.folder / "history.csv"
            method = measured.profile.experiment(name).base_method(run.method)
            if method.learns != "step_size" and path.is_file():
                frame = read_history(path)
                share = frame["meta_step"] / frame["meta_step"].max()
                frames.append(frame.assign(share=share, **run._asdict()))
    if not frames:
        return pd.DataFrame()
    columns = [*run._fields, "meta_step", "share", "validation"]
    return pd.concat(frames).dropna(subset=["validation"])[columns]
