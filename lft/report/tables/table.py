"""A table as data: typed numbers, and their text for LaTeX and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from lft.report.statistics import NOTHING, Interval


class Key(NamedTuple):
    """Identifies a number, by columns of measurements.csv."""

    experiment: str
    trained_on: str
    tested_on: str
    method: str
    order: str
    metric: str


@dataclass(frozen=True)
class TableCell:
    """One cell: our mean and interval over seeds, the paper's printed value, and what is missing.

    Attributes:
        ours: our number as text, or the status.
        paper: the paper's number as printed, with † if paper.csv has a note on it; – if none.
        paper_value: the same as a number; NaN if none.
        status: ok, diverged, missing or not applicable, of the worst seed.
        note: n of N seeds, diverged seeds, reasons.
        step: fine-tuning steps.
    """

    key: Key
    ours: str
    status: str
    note: str
    interval: Interval = NOTHING
    paper: str = "–"
    paper_value: float = np.nan
    step: int = 0


@dataclass(frozen=True)
class Table:
    """A table: rows and columns with headers, cells by position.

    Attributes:
        id: name of its files.
        corner: header of the rows' headers.
    """

    id: str
    caption: str
    corner: str
    columns: list[str]
    rows: list[str]
    cells: list[list[TableCell]]

    def frame(self) -> pd.DataFrame:
        """Return the cells as text, with the paper's number in brackets."""
        texts = [[_text(cell) for cell in row] for row in self.cells]
        return pd.DataFrame(
            texts, index=pd.Index(self.rows, name=self.corner), columns=self.columns
        )

    def numbers(self) -> pd.DataFrame:
        """Return one row per cell with typed numbers, in the units of measurements.csv."""
        return pd.DataFrame(
            {
                **cell.key._asdict(),
                "step": cell.step,
                "mean": cell.interval.mean,
                "low": cell.interval.low,
                "high": cell.interval.high,
                "interval": cell.interval.kind,
                "n_seeds": cell.interval.n,
                "paper": cell.paper_value,
                "paper_printed": cell.paper,
                "status": cell.status,
                "note": cell.note,
            }
            for row in self.cells
            for cell in row
        )

    def latex(self) -> str:
        """Return a tabular for booktabs; labels are escaped, and special signs become commands."""
        styled = self.frame().style.format(escape="latex")
        for axis in (0, 1):
            styled = styled.format_index(escape="latex", axis=axis)
        caption = self.caption.replace("%", r"\%")
        latex = styled.to_latex(hrules=True, caption=caption, label=self.id)
        return latex.replace("|δ|", r"$|\delta|$").translate(_LATEX)


_LATEX = str.maketrans(
    {"±": r"$\pm$", "†": r"\dag{}", "–": "--", "→": r"$\to$", "×": r"$\times$", "−": "$-$"}
)


def _text(cell: TableCell) -> str:
    explained = cell.note and cell.status != "not applicable"
    ours = f"{cell.ours} ({cell.note})" if explained else cell.ours
    return ours if cell.paper == "–" else f"{ours} [paper: {cell.paper}]"
