"""The schema of ``table.csv`` and ``curves.csv``. Tables are written so that they read back the same.

Files are untrusted: an invalid cell is treated as missing, which is reported once per column.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import pandas as pd

from hrvit_lab.files import guarded, unguarded
from hrvit_lab.metrics import METRICS, SPREAD

MAX_ROWS = {"table.csv": 10_000, "curves.csv": 1_000_000}
MAX_NUMBER = 1e30

COMPARED = ("params", "macs", "macs_paper")
"""Costs with published values."""

COMPARISONS = ("delta", "delta_se", "delta_low", "delta_high", "delta_p", "delta_n", "below_best", "below_best_p")
"""Suffixes of a metric over seeds: its comparisons with the reference and with the best variant."""

CURVES = ("train_loss", "train_top1", "val_loss", "val_top1")
"""Metrics of each epoch."""
VAL_MIOU = "val_miou"
"""The score of each epoch of a segmentation; a column of the curves if there is one."""

DISTURBED = "disturbed"
"""Suffix of a metric's key: the reasons why its value is unreliable; missing if it is reliable."""

NOT_BUILT = "not built here"
PARTIAL = "partial"
"""Status of a row that has only published values."""


class Number(NamedTuple):
    """A column of finite numbers within bounds."""

    low: float = 0
    high: float = MAX_NUMBER
    whole: bool = False


Kind = Number | Literal["text", "flag", "as written"]
"""Type of a column. "as written" is for axes: numbers if all cells have the form in which Python prints numbers."""

SIGNED = Number(low=-MAX_NUMBER)
COUNT = Number(whole=True)
SHARE = Number(high=1)
ENDS: Mapping[str, Number] = {
    "std": Number(), "n": COUNT, **{end: Number() for end in SPREAD},
    "delta": SIGNED, "delta_se": Number(), "delta_low": SIGNED, "delta_high": SIGNED, "delta_p": SHARE,
    "delta_n": COUNT, "below_best": SIGNED, "below_best_p": SHARE, "change_percent": SIGNED,
}  # fmt: skip
"""Suffixes of a metric's key with their types."""

TEXTS = (
    "variant", "config_id", "matching", "resolution", "status", "note", "macs_convention",
    "accuracy_metric", "accuracy_data", "cost_published", "imagenet_top1_delta_published",
    "cityscapes_miou_delta_published", *(f"{key}_agrees" for key in COMPARED),
)  # fmt: skip


@cache
def table_schema() -> Mapping[str, Kind]:
    """Types of the columns of ``table.csv``; all other columns are axes, read as written."""
    kinds: dict[str, Kind] = dict.fromkeys(TEXTS, "text")
    kinds |= {"pareto": "flag", "macs_vs_base": Number(), "accuracy_published": Number(high=100)}
    for key, metric in METRICS.items():
        kinds[key] = Number(high=100 if metric.unit == "%" else MAX_NUMBER, whole=not metric.unit)
        kinds |= {f"{key}_{end}": kind for end, kind in ENDS.items()}
        kinds[f"{key}_{DISTURBED}"] = "text"
    for key in COMPARED:
        kinds |= {f"{key}_published": COUNT, f"{key}_difference_percent": SIGNED}
        kinds[f"{key}_change_percent_published"] = SIGNED
    return kinds


@cache
def curves_schema() -> Mapping[str, Kind]:
    """Types of the columns of ``curves.csv``."""
    shares = ("train_top1", "val_top1", VAL_MIOU)
    figures = {name: Number(high=100 if name in shares else MAX_NUMBER) for name in (*CURVES, VAL_MIOU)}
    return {"variant": "text", "seed": COUNT, "epoch": COUNT, **figures}


def tidy_table(frame: pd.DataFrame) -> pd.DataFrame:
    """A study's table as it is read back: columns have their types, and dependent columns are added."""
    return _completed(_typed(frame, table_schema()))


def tidy_curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Training curves as they are read back."""
    return _typed(frame, curves_schema())


def no_curves() -> pd.DataFrame:
    """Empty training curves, for a study without training."""
    return tidy_curves(pd.DataFrame(columns=["variant", "seed", "epoch", *CURVES]))


def to_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV. Text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe."""
    schema = table_schema() if "status" in frame else curves_schema()
    columns = [_written(frame[name], _kind(schema, str(name))) for name in frame]
    rows = [[str(name) for name in frame], *zip(*columns, strict=True)]
    return "".join(",".join(map(_quoted, row)) + "\n" for row in rows)


def read_table(content: bytes) -> tuple[pd.DataFrame, list[str]]:
    """Read ``table.csv``; returns the table and its problems.

    Raises:
        ValueError: if it is not a table of variants; gives a short reason.
    """
    cells, faults = _read(content, "table.csv", ("variant",))
    if not cells["variant"]:
        raise ValueError("it has no rows")
    frame, wrong = _parsed(cells, table_schema(), "table.csv")
    named = frame["variant"].notna()
    if not named.all():
        faults.append(f"table.csv: {(~named).sum()} rows have no variant name and are ignored")
    if not named.any():
        raise ValueError("no row has a variant name")
    return _completed(frame[named].reset_index(drop=True)), faults + wrong


def read_curves(content: bytes) -> tuple[pd.DataFrame, list[str]]:
    """Read ``curves.csv``; returns the training curves and their problems.

    Raises:
        ValueError: if it is not a table of epochs; gives a short reason.
    """
    cells, faults = _read(content, "curves.csv", ("variant", "seed", "epoch", *CURVES))
    known = {name: cells[name] for name in curves_schema() if name in cells}
    frame, wrong = _parsed(known, curves_schema(), "curves.csv")
    placed = frame[["variant", "seed", "epoch"]].notna().all(axis=1)
    return frame[placed].reset_index(drop=True), faults + wrong


def _kind(schema: Mapping[str, Kind], name: str) -> Kind:
    return schema.get(name, "as written")


def _typed(frame: pd.DataFrame, schema: Mapping[str, Kind]) -> pd.DataFrame:
    """Convert each column to text and back, to its type."""
    columns = {str(name): _column(_written(frame[name], kind := _kind(schema, str(name))), kind)[0] for name in frame}
    return pd.DataFrame(columns, index=range(len(frame)))


def _completed(table: pd.DataFrame) -> pd.DataFrame:
    """Add columns that readers rely on: those of every table, and those of a mean (standard deviation, number)."""
    table = table.copy()
    missing: dict[str, Any] = {"config_id": None, "status": "ok", "pareto": False}
    for key, metric in METRICS.items():
        if key in table and metric.per_seed:
            missing |= dict.fromkeys((f"{key}_std", f"{key}_n"), math.nan)
        if {f"{key}_p10", f"{key}_p90"} & set(table):
            missing |= dict.fromkeys((f"{key}_p10", f"{key}_p90"), math.nan)
        for first in ("delta", "below_best"):
            if f"{key}_{first}" in table:
                missing |= {f"{key}_{end}": math.nan for end in COMPARISONS if end.startswith(first)}
    if "accuracy_published" in table:
        missing["accuracy_metric"] = None
    for name, value in missing.items():
        if name not in table:
            table[name] = value
    table["status"] = table["status"].fillna("ok")
    return table


def _read(content: bytes, name: str, needed: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The cells by column, and problems of the rows."""
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        head = next(lines, [])
        rows: list[list[str]] = []
        for row in lines:
            if len(rows) == MAX_ROWS[name]:
                break
            if row:
                rows.append(row)
        more = next((True for row in lines if row), False) if len(rows) == MAX_ROWS[name] else False
    except (UnicodeDecodeError, csv.Error) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ValueError(reason) from None
    if absent := [column for column in needed if column not in head]:
        raise ValueError(f"it has no column {absent[0]!r}")
    faults = []
    if more:
        faults.append(f"{name} has more than {MAX_ROWS[name]:,} rows; the others are ignored")
    if odd := sum(len(row) != len(head) for row in rows):
        faults.append(f"{name}: {odd} rows have more or fewer cells than the header")
    padded = [row + [""] * (len(head) - len(row)) for row in rows]
    columns: dict[str, list[str]] = {}
    for place, column in enumerate(head):
        if column and column not in columns:
            columns[column] = [row[place] for row in padded]
    return columns, faults


def _parsed(
    columns: Mapping[str, Sequence[str]], schema: Mapping[str, Kind], name: str
) -> tuple[pd.DataFrame, list[str]]:
    parsed, wrong = {}, Counter[str]()
    for column, texts in columns.items():
        parsed[column], wrong[column] = _column(texts, _kind(schema, column))
    odd = {column: bad for column, bad in wrong.items() if bad}
    faults = [f"{name}: {bad} cells of {column} are invalid and treated as missing" for column, bad in odd.items()]
    return pd.DataFrame(parsed), faults


def _column(texts: Iterable[str], kind: Kind) -> tuple["pd.Series[Any]", int]:
    """Parse a column; returns its values and the number of invalid cells. Empty cells are missing values."""
    if isinstance(kind, Number):
        values = [_number(text, kind) for text in texts]
        return pd.Series(values, dtype=float), sum(
            value is None and text != "" for value, text in zip(values, texts, strict=True)
        )
    if kind == "flag":
        return pd.Series([text == "True" for text in texts], dtype=bool), sum(
            text not in ("True", "False", "") for text in texts
        )
    plain = [unguarded(text) or None for text in texts]
    known = [text for text in plain if text is not None]
    if kind == "as written" and known and all(_is_number(text) for text in known):
        whole = all(_WHOLE.fullmatch(text) for text in known)
        numbers = [None if text is None else int(text) if whole else float(text) for text in plain]
        return pd.Series(numbers, dtype="Int64" if whole and None in numbers else int if whole else float), 0
    return pd.Series(plain, dtype=object), 0


_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,14}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _number(text: str, kind: Number) -> float | None:
    """The number in a cell; None if it is missing or invalid."""
    if len(text) > 400 or not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    fits = kind.low <= value <= kind.high and (not kind.whole or value.is_integer())
    return value if fits else None


def _is_number(text: str) -> bool:
    """Whether Python prints the number in this form; ``01``, ``1e3`` and ``0.50`` are names."""
    if _WHOLE.fullmatch(text):
        return True
    return bool(_NUMBER.fullmatch(text)) and math.isfinite(float(text)) and repr(float(text)) == text


def _written(column: "pd.Series[Any]", kind: Kind) -> list[str]:
    """A column's cells as text."""
    missing = column.isna().tolist()
    whole = isinstance(kind, Number) and kind.whole
    return ["" if gone else _cell(value, whole) for value, gone in zip(column.tolist(), missing, strict=True)]


def _cell(value: Any, whole: bool) -> str:
    if isinstance(value, str):
        return str(guarded(value))
    if whole and isinstance(value, float) and value.is_integer():
        return str(int(value))
    return (
        repr(float(value)) if isinstance(value, float) else str(value)
    )  # float() because numpy's repr includes the type


def _quoted(cell: str) -> str:
    """The cell, in quotes if needed. Up to 3.12, Python's csv module did not quote carriage returns."""
    return '"' + cell.replace('"', '""') + '"' if any(mark in cell for mark in ',"\r\n') else cell
