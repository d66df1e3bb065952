"""The study's tables on disk: any written table is read back equal; invalid cells are missing."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvit_lab.metrics import METRICS
from hrvit_lab.study.tables import (
    MAX_ROWS,
    Number,
    read_curves,
    read_table,
    table_schema,
    tidy_curves,
    tidy_table,
    to_csv,
)

AWKWARD = (
    "NA",
    "null",
    "None",
    "nan",
    "01",
    "1e3",
    "0.50",
    "7",
    "-1",
    "True",
    "inf",
    "1_000",
    " a ",
    "a\rb",
    'a"b,\nc',
)
FORMULAS = ("=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''@x", "-1+1")

names = st.one_of(st.sampled_from(AWKWARD + FORMULAS), st.text(min_size=1, max_size=20))
cells = st.one_of(st.none(), names)


def numbers(kind: Number) -> st.SearchStrategy[float | None]:
    if kind.whole:
        return st.one_of(st.none(), st.integers(int(kind.low), 2**53).map(float))
    return st.one_of(st.none(), st.floats(kind.low, kind.high))


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """A table of a study with any of its columns, and axes of numbers, words or both."""
    rows = draw(st.integers(1, 5))
    figures = [name for name, kind in table_schema().items() if isinstance(kind, Number)]
    columns: dict[str, Any] = {"variant": [draw(names) for _ in range(rows)]}
    axis = draw(st.sampled_from([cells, st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9), st.booleans()]))
    columns["window_sizes"] = [draw(axis) for _ in range(rows)]
    columns["note"] = [draw(cells) for _ in range(rows)]
    columns["status"] = [draw(st.sampled_from(["ok", "partial", "failed: =x"])) for _ in range(rows)]
    columns["pareto"] = [draw(st.booleans()) for _ in range(rows)]
    for name in draw(st.lists(st.sampled_from(figures), max_size=6, unique=True)):
        kind = table_schema()[name]
        assert isinstance(kind, Number)
        columns[name] = [draw(numbers(kind)) for _ in range(rows)]
    return pd.DataFrame(columns, dtype=object)


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a, b, check_exact=True)


@given(tables())
@settings(max_examples=150)
def test_a_table_reads_back_as_it_was_written(table: pd.DataFrame) -> None:
    tidy = tidy_table(table)
    assert tidy["variant"].tolist() == table["variant"].tolist()
    for name in table:
        if isinstance(table_schema().get(str(name)), Number):  # numbers are written without loss
            assert [None if math.isnan(v) else v for v in tidy[name]] == table[name].tolist()
    read, faults = read_table(to_csv(tidy).encode())
    assert faults == []
    same(read, tidy)
    same(tidy_table(read), read)


@given(st.lists(st.tuples(names, st.integers(0, 9), st.integers(0, 9), st.floats(0, 100)), min_size=1, max_size=5))
@settings(max_examples=60)
def test_curves_read_back_as_they_were_written(rows: list[tuple[str, int, int, float]]) -> None:
    frame = pd.DataFrame(rows, columns=["variant", "seed", "epoch", "val_top1"])
    curves = tidy_curves(frame.assign(train_loss=1.5, train_top1=50.0, val_loss=np.nan))
    read, faults = read_curves(to_csv(curves[["variant", "seed", "epoch", *list(curves)[3:]]]).encode())
    assert faults == []
    same(read, curves[list(read)])


@pytest.mark.parametrize("text", FORMULAS)
def test_text_cells_are_no_formulas_and_numbers_stay_numbers(text: str) -> None:
    table = tidy_table(pd.DataFrame({"variant": [text], "note": [text], "top1_delta": [-0.25], "status": ["ok"]}))
    head, cells = csv.reader(io.StringIO(to_csv(table), newline=""))
    shown = dict(zip(head, cells, strict=True))
    for column in ("variant", "note"):
        assert shown[column][0] not in "=+-@\t\r\n＝＋－＠" or text == "-1"
    assert shown["top1_delta"] == "-0.25"
    assert read_table(to_csv(table).encode())[0]["variant"].tolist() == [text]


def test_names_are_text_and_axes_are_numbers_if_all_cells_are() -> None:
    content = b"variant,a,b,c,d,status\n01,1,1,0.5,01,ok\n1e3,2,1-2-7,1e-05,2,ok\nNA,,,2.0,3,ok\n"
    table, faults = read_table(content)
    assert faults == [] and table["variant"].tolist() == ["01", "1e3", "NA"]
    assert table["a"].tolist()[:2] == [1, 2] and table["a"].dtype == "Int64"
    assert table["b"].tolist() == ["1", "1-2-7", None] and table["d"].tolist() == ["01", "2", "3"]
    assert table["c"].tolist() == [0.5, 1e-05, 2.0]


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("macs", "inf"), ("macs", "nan"), ("macs", "1e400"), ("macs", "-3"), ("macs", "2.5"), ("macs", "True"),
        ("macs", "9" * 5000), ("macs", "1_000"), ("macs", "0x10"), ("macs", "٣"), ("top1", "101"), ("top1", "-0.1"),
        ("top1_n", "2.5"), ("top1_delta_p", "1.5"), ("top1_std", "-1"), ("latency_ms_p90", "many"), ("pareto", "maybe"),
    ],
)  # fmt: skip
def test_an_invalid_cell_is_missing_and_reported_once(column: str, cell: str) -> None:
    content = f"variant,{column}\na,{cell}\nb,{cell}\nc,\n"
    table, faults = read_table(content.encode())
    assert faults == [f"table.csv: 2 cells of {column} are invalid and treated as missing"]
    assert not table[column].any() if column == "pareto" else table[column].isna().all()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"variant,macs\na,1\nb\nc,2,3\n", "table.csv: 2 rows have more or fewer cells than the header"),
        (b"variant,macs\na,1\n,2\n", "table.csv: 1 rows have no variant name and are ignored"),
    ],
)
def test_invalid_rows_are_reported_once(content: bytes, fault: str) -> None:
    assert read_table(content)[1] == [fault]


def test_the_number_of_rows_is_bounded_and_the_limit_reported() -> None:
    lines = "".join(f"v{i},{i}\n" for i in range(MAX_ROWS["table.csv"] + 5))
    table, faults = read_table(f"variant,macs\n{lines}".encode())
    assert len(table) == MAX_ROWS["table.csv"] == 10_000
    assert faults == ["table.csv has more than 10,000 rows; the others are ignored"]
    assert read_table("".join(["variant,macs\n", *lines.splitlines(True)[:10_000]]).encode())[1] == []


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b\n1,2\n", b'variant\n"' + b"a" * 200_000, b"variant\n\n"])
def test_an_invalid_table_has_one_reason(content: bytes) -> None:
    with pytest.raises(ValueError) as error:
        read_table(content)
    assert "\n" not in str(error.value)


def test_every_metric_has_its_columns() -> None:
    """A new metric is read as a number; the schema is derived from the table of metrics."""
    for key in METRICS:
        assert isinstance(table_schema()[key], Number) and isinstance(table_schema()[f"{key}_std"], Number)


def test_committed_tables_fit_the_schema() -> None:
    folders = sorted((Path(__file__).parents[1] / "studies" / "measured").glob("*/table.csv"))
    assert len(folders) >= 8
    for path in folders:
        assert read_table(path.read_bytes())[1] == [], path
