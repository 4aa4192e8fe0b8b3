"""The figures of the paper and the theory.

Each builder maps :class:`Measured` to drawings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import seaborn as sns
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lft import plugins
from lft.config import Profile
from lft.report.figures.base import Drawing, Measured
from lft.report.figures.effects import effects
from lft.report.figures.finetuning import (
    accuracy,
    distortion,
    horizons,
    others,
    regression,
    success_rate,
)
from lft.report.figures.pictures import perturbations
from lft.report.figures.support import support_sizes
from lft.report.figures.theory import gaps, vanishing
from lft.report.figures.training import histories
from lft.report.style import CAPTION_COLUMNS, INK, RULE
from lft.storage.atomic import atomic_folder
from lft.storage.csv import write_frame, write_rows

__all__ = ["BUILDERS", "Drawing", "Measured", "build_figures", "draw_figures", "write_drawings"]

mpl.use("Agg")
RC: dict[str, Any] = {
    "svg.hashsalt": "lft",
    "svg.fonttype": "none",
    "text.parse_math": False,  # labels come from settings and are plain text
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 150,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
}
"""Settings of matplotlib."""
UNDATED = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}
"""Metadata that make the files of one format reproducible."""


def draw_figures(profile: Profile, results: Path) -> None:
    """Write every figure that the measurements allow into ``figures/``.

    See :func:`write_drawings` for the files.
    """
    write_drawings(_built(profile, results), results / "figures")


def write_drawings(drawings: Iterable[tuple[str, Drawing]], target: Path) -> None:
    """Write figures as SVG, PDF, PNG and CSV, with their captions in ``captions.csv``.

    Args:
        drawings: each with the name of the function that drew it.
        target: folder to write; replaced if it exists.
    """
    with (
        mpl.style.context([dict(sns.axes_style("whitegrid")), RC]),
        atomic_folder(target) as folder,
    ):
        rows = []
        for builder, drawing in drawings:
            if drawing.figure.get_layout_engine() is None:
                # Lay out once for all formats; with an engine, savefig draws each format twice.
                ConstrainedLayoutEngine().execute(drawing.figure)
            for suffix, metadata in UNDATED.items():
                drawing.figure.savefig(folder / f"{drawing.id}.{suffix}", metadata=metadata)
            write_frame(folder / f"{drawing.id}.csv", drawing.data)
            rows.append((drawing.id, drawing.section, drawing.caption, drawing.alt, builder))
        write_rows(folder / "captions.csv", CAPTION_COLUMNS, rows)


def build_figures(profile: Profile, results: Path) -> Iterator[Drawing]:
    """Yield all figures that the measurements allow, in the order of the page."""
    for _, drawing in _built(profile, results):
        yield drawing


def _built(profile: Profile, results: Path) -> Iterator[tuple[str, Drawing]]:
    """Yield all figures, each with the name of the function that drew it."""
    measured = Measured(profile, results)
    plugged = [*plugins.installed("figures"), *profile.plugins.figures]
    for build in (*BUILDERS, *map(plugins.load_object, plugged)):
        for drawing in build(measured):
            yield f"{build.__module__}.{build.__qualname__}", drawing


BUILDERS: tuple[Callable[[Measured], Iterator[Drawing]], ...] = (
    success_rate,
    distortion,
    accuracy,
    regression,
    others,
    effects,
    support_sizes,
    horizons,
    perturbations,
    gaps,
    vanishing,
    histories,
)
"""Functions that draw figures, in the order of the page."""
