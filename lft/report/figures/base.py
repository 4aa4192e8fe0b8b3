"""Shared by all figures: measurements, axes, legends, footnotes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from lft.config import Profile
from lft.report.style import Style
from lft.results.schema import SUMMARY_COLUMNS, THEORY_COLUMNS
from lft.storage.csv import read_rows

PAPER_STEP = 100
"""Fine-tuning steps of the paper's Table 1."""


@dataclass(frozen=True)
class Drawing:
    """A figure with its numbers and a description.

    Attributes:
        id: name of its files.
        section: section of the page: figures, theory or training.
        alt: alternative text, from the data.
        data: the numbers drawn.
    """

    id: str
    section: str
    caption: str
    alt: str
    figure: Figure
    data: pd.DataFrame


@dataclass(frozen=True)
class Measured:
    """The tables of a result folder, read on first use."""

    profile: Profile
    results: Path

    @cached_property
    def style(self) -> Style:
        """Labels, colours and line styles."""
        return Style(self.profile)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Rows of summary.csv."""
        return read_rows(self.results / "summary.csv", SUMMARY_COLUMNS)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Means over seeds, see :func:`curves`."""
        return curves(self.summary)

    @cached_property
    def theory(self) -> pd.DataFrame:
        """Rows of theory.csv."""
        return read_rows(self.results / "theory.csv", THEORY_COLUMNS)


def curves(summary: pd.DataFrame) -> pd.DataFrame:
    """Average every cell and step over seeds, with the standard deviation over tasks and seeds.

    The variance over tasks and seeds is the mean variance within a seed plus the variance of the
    seeds' means.

    Args:
        summary: rows of summary.csv.
    """
    keys = ["experiment", "trained_on", "tested_on", "method", "order", "metric", "step"]
    frame = summary.assign(variance=summary["std"] ** 2)
    groups = frame.groupby(keys, observed=True, sort=False)
    result = groups.agg(
        mean=("mean", "mean"),
        within=("variance", "mean"),
        between=("mean", lambda means: means.var(ddof=0)),
        seeds=("seed", "nunique"),
    ).reset_index()
    result["std"] = np.sqrt(result["within"] + result["between"])
    return result.drop(columns=["within", "between"])


def rows_with(data: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    """Return the rows that have all these values."""
    return data[np.logical_and.reduce([data[name] == value for name, value in values.items()])]


def subplots(
    rows: int, columns: int, width: float = 2.4, height: float = 1.9, *, share: bool = True
) -> tuple[Figure, NDArray[Any]]:
    """Create a figure with axes (rows, columns).

    Args:
        rows: number of rows.
        columns: number of columns.
        width: of each, in inches.
        height: of each, in inches.
        share: whether all share their scales.
    """
    figure = Figure(figsize=(width * columns, height * rows + 0.6))
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)


def add_legend(figure: Figure, axes: NDArray[Any]) -> None:
    """Add one legend below all axes, with an entry for every label."""
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    longest = max(map(len, handles), default=0)
    columns = max(1, int(figure.get_figwidth() / (0.6 + 0.075 * longest)))  # inches
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=columns,
        handlelength=2.6,
    )  # fmt: skip


def noted(caption: str, style: Style, *experiments: str) -> str:
    """Add the footnote on stand-in data to a caption, if the experiments use such data."""
    mixtures = [
        style.mixture(name, family)
        for name in experiments
        for family in style.profile.experiment(name).families
    ]
    return f"{caption} {style.footnote}" if any("*" in mixture for mixture in mixtures) else caption


def plain_number(value: float, _position: float) -> str:
    """Format a tick's label without powers of ten, up to six digits."""
    return f"{value:g}"


def decades(axis: Axes) -> None:
    """Label a logarithmic y-axis at 1, 2 and 5, or at powers of ten if it spans many decades."""
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(plain_number)
    axis.yaxis.set_minor_formatter(NullFormatter())
