"""Write CSV files atomically and read them with typed columns; errors name the file and line."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from lft.errors import UsageError
from lft.storage.atomic import atomic_path

if TYPE_CHECKING:
    import pandas as pd


def write_rows(path: Path | str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically; floats keep seven significant digits.

    Args:
        path: the file.
        columns: the header.
        rows: values in the order of the columns.

    Raises:
        UsageError: the folder cannot be written or the disk is full.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(
            [f"{value:.7g}" if isinstance(value, float) else value for value in row] for row in rows
        )


def write_frame(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a table as CSV atomically.

    Floats keep seven significant digits, because the last of sixteen vary between processors.

    Raises:
        UsageError: the folder cannot be written or the disk is full.
    """
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.7g", lineterminator="\n")


AGAIN = "delete the file and run the workflow again"
"""What to do about a damaged file that a job wrote."""


def read_rows(path: Path | str, columns: Sequence[str], *, again: str = AGAIN) -> pd.DataFrame:
    """Read a CSV file that :func:`write_rows` wrote.

    Numeric columns become float64 or int64, all others text. In the columns ``validation``,
    ``error`` and ``outer``, an empty field is NaN.

    Args:
        path: the file, gzipped if its name ends in .gz.
        columns: the expected header.
        again: what to do about a malformed file, for the message.

    Raises:
        UsageError: the file is missing, or has other columns or a malformed row; the message names
            the file and the line.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    text = pa.dictionary(pa.int32(), pa.string())
    types = {name: _NUMBERS.get(name, text) for name in columns}
    try:
        # Only an empty field is a missing value; "NA" is text.
        options = arrow_csv.ConvertOptions(column_types=types, null_values=[""])
        with _opened(Path(path)) as file:
            table = arrow_csv.read_csv(file, convert_options=options)
        if table.column_names != list(columns):
            raise ValueError("unexpected columns")
        if any(table[name].null_count for name in columns if name not in _MAY_BE_EMPTY):
            raise ValueError("an empty number")
    except ValueError as error:  # also pyarrow.ArrowInvalid and UnicodeDecodeError
        raise UsageError(_locate_bad_row(Path(path), columns, error, again)) from None
    except _UNREADABLE as error:
        raise UsageError(f"cannot read {path}: {_why(error)}") from None
    frame: pd.DataFrame = table.to_pandas()
    return frame


_MAY_BE_EMPTY = {"validation", "error", "outer"}
_NUMBERS = {
    "loss": "float64",
    "validation": "float64",
    "error": "float64",
    "outer": "float64",
    "value": "float64",
    "mean": "float64",
    "std": "float64",
    "base": "float64",
    "difference": "float64",
    "low": "float64",
    "high": "float64",
    "p": "float64",
    "seconds": "float64",
    "meta_step": "int64",
    "n_seeds": "int64",
    "seed": "int64",
    "step": "int64",
    "steps": "int64",
    "tasks": "int64",
}


def _locate_bad_row(path: Path, columns: Sequence[str], error: Exception, advice: str) -> str:
    """Describe the first line of a CSV file with unexpected columns or types."""
    try:
        with io.TextIOWrapper(_opened(path), encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != tuple(columns):
                return f"{path} line 1: expected the columns {','.join(columns)}; {advice}"
            for row in reader:
                line = f"{path} line {reader.line_num}"
                if len(row) != len(columns):
                    return f"{line}: {len(row)} fields instead of {len(columns)}; {advice}"
                for name, text in zip(columns, row, strict=True):
                    if not _fits(name, text):
                        return f"{line}: {name} is {text[:40]!r}, not a number; {advice}"
    except (UnicodeDecodeError, csv.Error) as problem:
        return f"{path} is damaged ({problem}); {advice}"
    return f"{path} cannot be read ({' '.join(str(error).split())[:120]}); {advice}"


def _fits(column: str, text: str) -> bool:
    """Whether a text is a valid value of a column."""
    kind = _NUMBERS.get(column)
    if column in _MAY_BE_EMPTY and not text:
        return True
    try:
        number = {"float64": float, "int64": int}[kind](text) if kind else 0
    except ValueError:
        return False
    return kind is None or ("_" not in text and (kind == "float64" or abs(number) < 2**63))


def stored(path: Path) -> Path:
    """Path of a file, or of its gzipped version if only that exists, as in a kept run."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path


def _opened(path: Path) -> BinaryIO:
    """Open a file for reading bytes; decompress it if its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


_UNREADABLE = (OSError, EOFError, zlib.error)
"""Errors of reading a plain or gzipped file."""


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it is damaged"


def read_bytes(path: Path) -> bytes:
    """Read a file's content; decompress it if its name ends in .gz.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with _opened(path) as file:
            return file.read()
    except _UNREADABLE as error:
        raise UsageError(f"cannot read {path}: {_why(error)}; run the workflow again") from None


def join_csv(path: Path | str, columns: Sequence[str], parts: Iterable[Path]) -> None:
    """Concatenate CSV files with the same header atomically, without parsing their rows.

    Args:
        path: the joined file.
        columns: the expected header.
        parts: files to join, in order; those whose names end in .gz are decompressed.

    Raises:
        UsageError: a part cannot be read, has other columns or ends in the middle of a line.
    """
    header = f"{','.join(columns)}\n".encode()
    with atomic_path(path) as temporary, temporary.open("wb") as joined:
        joined.write(header)
        for part in parts:
            content = read_bytes(part)
            if not (content.startswith(header) and content.endswith(b"\n")):
                raise UsageError(
                    f"{part}: expected the columns {','.join(columns)} and a complete last line; "
                    f"{AGAIN}"
                )
            joined.write(content[len(header) :])
