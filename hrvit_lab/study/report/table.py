"""The report's table: columns with headings, cells with sort keys."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from hrvit_lab.metrics import METRICS, metric_label
from hrvit_lab.study.columns import MARKED, Column, cell
from hrvit_lab.study.results import Results, records_of
from hrvit_lab.study.tables import DISTURBED


class TableColumn(NamedTuple):
    """A column of the report's table, except the first one with the variants' names.

    Attributes:
        group: heading shared with neighbouring columns; None if there is none.
        head: the column's own header.
        doc: its meaning.
        style: CSS class of its cells.
        cells: (text, sort key) of every row.
    """

    group: str | None
    head: str
    doc: str
    style: str
    cells: list[tuple[Any, Any]]


def table_columns(results: Results, compared: Sequence[Column]) -> list[TableColumn]:
    """The columns in order: axes, metrics with their comparisons, published values."""
    rows = records_of(results.table)
    columns = [
        TableColumn(None, axis.replace("_", " "), "", "", [(value, value) for value in _column(rows, axis)])
        for axis in results.axes
    ]
    if "macs_vs_base" in results.table and "macs_change_percent" not in results.table:
        ratios = [(f"{row['macs_vs_base']:.2f}", row["macs_vs_base"]) for row in rows]
        columns.append(TableColumn(None, "MACs, × base", "", "number", ratios))
    for key in results.metrics:
        label, doc = metric_label(key, results.dataset), METRICS[key].doc
        figures = [(cell(key, row), value) for row, value in zip(rows, _column(rows, key), strict=True)]
        others = [_compared(label, column) for column in compared if column.metric == key]
        columns += [
            TableColumn(label if others else None, "ours" if others else label, doc, "number", figures),
            *others,
        ]
    return columns + [_compared("published", column) for column in compared if column.metric is None]


def headings(columns: Sequence[TableColumn]) -> list[tuple[str | None, list[tuple[int, TableColumn]]]]:
    """Columns grouped by heading, each with its index in the table (the names have index 0)."""
    places = enumerate(columns, 1)
    return [(group, list(members)) for group, members in itertools.groupby(places, key=lambda place: place[1].group)]


def _compared(group: str, column: Column) -> TableColumn:
    cells = list(zip(column.texts, column.keys, strict=True))
    return TableColumn(group, column.head, column.doc, "prose" if column.prose else "number", cells)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """A column's values; an empty string where one is missing."""
    return ["" if pd.isna(row[name]) else row[name] for row in rows]


def row_head(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a variant that the template shows in addition to the columns."""
    return {
        "variant": row["variant"],
        "pareto": row["pareto"],
        "status": row["status"],
        "config_id": row["config_id"] or "",
    }


def table_note(results: Results, total: int) -> str:
    """Notes on how to read the table; ``total`` is the number of variants of the study."""
    said = ["Click a column header to sort."]
    if len(results.table) < total:
        said.append(
            f"Shown: {len(results.table):,} of {total:,} variants, including the Pareto front; table.csv has all."
        )
    if any(f"{key}_std" in results.table and results.table[f"{key}_std"].notna().any() for key in results.metrics):
        said.append("± is one standard deviation over seeds.")
    if results.spec.compare_to is not None and any(f"{key}_delta_low" in results.table for key in results.metrics):
        said.append(f"Δ is the difference to {results.spec.compare_to!r}, paired by seed, with its 95 % interval.")
    if any(f"{key}_p10" in results.table for key in results.metrics):
        said.append("Latency is a median, with its 10th to 90th percentile.")
    if any(f"{key}_{DISTURBED}" in results.table for key in results.metrics):
        said.append(MARKED)
    if results.table["pareto"].any():
        x, y = results.spec.axes_of_tradeoff
        said.append(f"● marks the Pareto front of {METRICS[x].label} and {METRICS[y].label}, by their central values.")
    return " ".join(said)
