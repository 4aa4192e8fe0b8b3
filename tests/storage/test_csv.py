"""CSV and JSON records: round trips, atomic writes, and errors that name file and line."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lft.errors import UsageError
from lft.results.schema import CELL_COLUMNS, HISTORY_COLUMNS, THEORY_COLUMNS, Measurement
from lft.storage.csv import join_csv, read_rows, write_rows
from lft.storage.json import read_json, write_json

COLUMNS = Measurement._fields
HEADER = ",".join(COLUMNS) + "\n"
GOOD = "sine,sine,sine,lft,first,0,sine-0,1,mse,0.5\n"

fuzzing = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def measurement(**changes: object) -> Measurement:
    row = Measurement("sine", "sine", "sine", "lft", "first", 0, "sine-0", 1, "mse", 0.5)
    return row._replace(**changes)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# ---------------------------------------------------------------- rows


def test_rows_that_fail_half_way_leave_nothing(tmp_path: Path) -> None:
    def rows() -> object:
        yield measurement()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_rows(tmp_path / "rows.csv", COLUMNS, rows())
    assert names(tmp_path) == []


texts = st.text(
    st.characters(blacklist_categories=("Cs", "Cc")) | st.sampled_from(',"'), max_size=8
)
numbers = st.integers(-(2**62), 2**62)


@given(
    rows=st.lists(
        st.builds(
            Measurement,
            *5 * [texts],
            numbers,
            texts,
            numbers,
            texts,
            st.floats(width=32),
        ),
        max_size=5,
    )
)
@fuzzing
def test_rows_round_trip(rows: list[Measurement], tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", COLUMNS, rows)
    frame = read_rows(tmp_path / "rows.csv", COLUMNS)
    assert len(frame) == len(rows)
    for row, read in zip(rows, frame.itertuples(index=False), strict=True):
        assert tuple(read)[:-1] == row[:-1]
        # Seven significant digits are written.
        assert read.value == pytest.approx(row.value, rel=5.1e-7, abs=0.0, nan_ok=True)


def test_rows_have_columns_of_the_documented_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows(path, COLUMNS, [measurement(task="7", metric="NA"), measurement(value=math.nan)])
    frame = read_rows(path, COLUMNS)
    assert frame["value"].dtype == "float64"
    assert frame["seed"].dtype == frame["step"].dtype == "int64"
    assert frame["task"].tolist() == ["7", "sine-0"]
    assert frame["metric"].tolist() == ["NA", "mse"]
    assert math.isnan(frame["value"][1])
    assert isinstance(frame["task"].dtype, pd.CategoricalDtype)


def test_other_tables_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows(path, CELL_COLUMNS, [["a", "b", "c", "d", "first", 0, "ok", ""]])
    assert read_rows(path, CELL_COLUMNS)["reason"].tolist() == [""]
    write_rows(path, THEORY_COLUMNS, [["a", "best", "gap", "lft", 0, 5, 8, 16, "t-0", 0.25]])
    frame = read_rows(path, THEORY_COLUMNS)
    assert frame["steps"].tolist() == [5]
    assert frame["value"].tolist() == [0.25]


BAD_ROWS = {
    "a word for a number": (GOOD + GOOD.replace("0.5", "half"), "line 3: value is 'half'"),
    "an empty number": (GOOD + GOOD.replace("0.5", ""), "line 3: value is ''"),
    "no number": (GOOD.replace("0.5", "NA"), "line 2: value is 'NA'"),
    "a truth value for a number": (GOOD.replace("0.5", "true"), "line 2: value is 'true'"),
    "a date for a number": (GOOD.replace("0.5", "2020-01-01"), "line 2: value is '2020-01-01'"),
    "a fraction for a seed": (GOOD.replace(",0,", ",1.5,"), "line 2: seed is '1.5'"),
    "a huge seed": (GOOD.replace(",0,", f",{10**19},"), "line 2: seed is '1000000"),
    "no seed": (GOOD + GOOD + GOOD.replace(",0,", ",,"), "line 4: seed is ''"),
    "an underscore": (GOOD.replace("0.5", "1_0"), "line 2: value is '1_0'"),
    "a field too many": (GOOD + GOOD.replace("0.5", "0.5,9"), "line 3: 11 fields instead of 10"),
    "a row cut short": (GOOD + GOOD[:-9], "line 3: 8 fields instead of 10"),
    "zero bytes": (GOOD + "\0\0\0\n", "line 3: 1 fields instead of 10"),
    "an open quote": ('"' + GOOD + GOOD, "line 3: 1 fields instead of 10"),
}


@pytest.mark.parametrize("case", sorted(BAD_ROWS))
def test_a_bad_row_is_named_by_file_and_line(case: str, tmp_path: Path) -> None:
    rows, expected = BAD_ROWS[case]
    path = tmp_path / "rows.csv"
    path.write_text(HEADER + rows)
    with pytest.raises(UsageError) as caught:
        read_rows(path, COLUMNS)
    assert str(caught.value).startswith(f"{path} {expected}")
    assert str(caught.value).endswith("delete the file and run the workflow again")


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for content in (b"", GOOD.encode(), b"a,b\n1,2\n", (HEADER[:-1] + ",x\n").encode()):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"rows.csv line 1: expected the columns experiment,"):
            read_rows(path, COLUMNS)
    path.write_bytes(HEADER.encode() + b"\xff" + GOOD.encode())
    with pytest.raises(UsageError, match=r"rows.csv is damaged"):
        read_rows(path, COLUMNS)
    for unreadable in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(UsageError, match=f"cannot read {unreadable}: "):
            read_rows(unreadable, COLUMNS)


@given(data=st.data())
@fuzzing
def test_a_damaged_table_is_read_or_refused_in_one_line(
    data: st.DataObject, tmp_path: Path
) -> None:
    content = bytearray((HEADER + 2 * GOOD).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    try:
        read_rows(path, COLUMNS)
    except UsageError as refused:
        assert len(str(refused).splitlines()) == 1
        assert str(path) in str(refused)


def test_tables_are_joined_byte_by_byte(tmp_path: Path) -> None:
    rows = [measurement(seed=seed, value=seed / 3) for seed in range(5)]
    parts = [tmp_path / "a.csv", tmp_path / "empty.csv", tmp_path / "b.csv"]
    for part, content in zip(parts, (rows[:2], [], rows[2:]), strict=True):
        write_rows(part, COLUMNS, content)
    join_csv(tmp_path / "joined.csv", COLUMNS, parts)
    write_rows(tmp_path / "expected.csv", COLUMNS, rows)
    assert (tmp_path / "joined.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


@pytest.mark.parametrize("content", [None, b"", HEADER.encode() + b"cut", b"a,b\n", b"\xff\n"])
def test_a_bad_part_is_named_and_nothing_is_joined(content: bytes | None, tmp_path: Path) -> None:
    part = tmp_path / "part.csv"
    if content is not None:
        part.write_bytes(content)
    with pytest.raises(UsageError, match=str(part)):
        join_csv(tmp_path / "joined.csv", COLUMNS, [part])
    assert not (tmp_path / "joined.csv").exists()


# ---------------------------------------------------------------- JSON


def test_json_round_trips_in_order(tmp_path: Path) -> None:
    content = {"z": 1.25, "a": [1, None, "é"], "m": {"k": True}}
    write_json(tmp_path / "x.json", content)
    read = read_json(tmp_path / "x.json")
    assert read == content
    assert list(read) == list(content)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b"nul"])
def test_bad_json_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    advice = r"x\.json .*; delete the file and run the workflow again$"
    with pytest.raises(UsageError, match=advice) as caught:
        read_json(tmp_path / "x.json")
    assert len(str(caught.value).splitlines()) == 1


def test_absent_json_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_json(tmp_path / "x.json")


def test_a_key_that_is_needed_and_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"status": "ok", "seconds": 3, "commit": None})
    assert read_json(path, status=str, seconds=float, commit=object)["seconds"] == 3
    for needed in ({"reason": str}, {"status": float}, {"machine": object}):
        (key,) = needed
        with pytest.raises(UsageError, match=rf"run\.json: '{key}' is missing or no .*; delete"):
            read_json(path, **needed)


def test_what_a_validation_fills_may_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_rows(
        path, HISTORY_COLUMNS, [(1, "a", math.nan, "", "", ""), (2, "a+b", 0.5, 0.25, 0.1, 2)]
    )
    frame = read_rows(path, HISTORY_COLUMNS)
    assert list(frame["meta_step"]) == [1, 2]
    assert [str(value) for value in frame["validation"]] == ["nan", "0.25"]
    for row in ("3,a,,1,1,1\n", ",a,1,1,1,1\n", "3,a,1,x,1,1\n", "3,a,1,1,x,1\n"):
        path.write_text(f"{','.join(HISTORY_COLUMNS)}\n1,a,1,,,\n{row}")
        with pytest.raises(UsageError, match=r"history\.csv line 3: .* not a number"):
            read_rows(path, HISTORY_COLUMNS)
