"""The history of a meta-training, ``history.csv``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lft.results.schema import FORMER_HISTORY_COLUMNS, HISTORY_COLUMNS
from lft.storage.csv import read_rows

if TYPE_CHECKING:
    import pandas as pd


def read_history(path: Path | str) -> pd.DataFrame:
    """Read a ``history.csv``; columns that an older layout lacks become NaN.

    Raises:
        UsageError: the file is missing or damaged.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            former = file.readline().strip() == ",".join(FORMER_HISTORY_COLUMNS)
    except (OSError, UnicodeDecodeError):
        former = False  # read_rows says what is wrong
    frame = read_rows(path, FORMER_HISTORY_COLUMNS if former else HISTORY_COLUMNS)
    return frame.reindex(columns=list(HISTORY_COLUMNS))
