"""Page "Explore": all results in one chart; the table and the details follow its selection."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from hrvit_lab.app import folders
from hrvit_lab.app.chart_view import draw_chart
from hrvit_lab.app.details import draw_details
from hrvit_lab.app.parallel_chart import parallel_chart, parallel_conditions
from hrvit_lab.app.point_groups import COLORED
from hrvit_lab.app.points_chart import (
    ERRORS,
    ERRORS_HELP,
    as_errors,
    scatter_chart,
    scatter_conditions,
    scatter_data,
    scatter_titles,
    scatter_values,
)
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import ConfigError
from hrvit_lab.metrics import METRICS, SCORES
from hrvit_lab.study.limits import parse_limits, within
from hrvit_lab.study.point_rows import KINDS
from hrvit_lab.study.points import Points, collect, present
from hrvit_lab.study.quantities import Quantity

MAX_TABLE = 1000  # rows
FIRST_METRICS = ("top1", "macs")
"""Of the vertical and the horizontal axis of a first visit."""

HELP_LIMITS = """Metrics: {keys}. Several limits are separated by commas, such as `params < 5M, top1 > 80`.
If a metric was measured under several conditions, all values of a point must be within the limit."""


def show() -> None:
    """Draw the page."""
    found = _folders(sys.argv[1:])
    points = _collect(*(tuple((name, str(path), _modified(path)) for name, path in each.items()) for each in found))
    for fault in points.faults:
        st.warning(plain(fault), icon=":material/warning:")
    table = _filtered(points)
    quantities = present(table, points.quantities)
    if len(quantities) < 2:
        st.info("The filters leave no point with two values. Remove one of them.")
        return
    y, x, colored = _axes(table, quantities)
    shown = table[table[[x.key, y.key]].notna().all(axis=1)]
    errors = y.unit == "%" and st.toggle(
        ERRORS, key="error", bind="query-params", help=ERRORS_HELP,
    )  # fmt: skip
    scatter, parallel = st.tabs(["Scatter", "Parallel coordinates"], key="view", bind="query-params")
    selected = shown.iloc[:0]
    if scatter.open:
        with scatter:
            selected = _draw_scatter(*(as_errors(shown, y) if errors else (shown, y)), x, colored)
    if parallel.open:
        with parallel:
            _draw_parallel(table, quantities, [x, y], colored)
    rows = _draw_table(shown if selected.empty else selected, [y, x], everything=selected.empty)
    chosen = selected if rows.empty else rows
    if not chosen.empty:
        draw_details(chosen, points.quantities)


# -- what is shown ---------------------------------------------------------------------------------------


def _folders(arguments: list[str]) -> tuple[dict[str, Path], dict[str, Path], dict[str, Path]]:
    """Folders by name of studies and of latencies (the user's own and the reference results), and of trainings."""
    results, runs = folders.results_root(arguments), folders.runs_root(arguments)
    own, reference = folders.find_results(results), folders.find_results(folders.REFERENCE)
    trainings = folders.find_trainings(runs, results)
    timed = folders.find_latencies(results), folders.find_latencies(folders.REFERENCE)
    return (
        own | {name: path for name, path in reference.items() if name not in own},
        {name: path for name, path in trainings.items() if (path / "result.json").is_file()},
        timed[0] | {name: path for name, path in timed[1].items() if name not in timed[0]},
    )


def _modified(folder: Path) -> int:
    return max((path.stat().st_mtime_ns for path in folder.glob("*.*")), default=0)


@st.cache_data(max_entries=4, show_spinner="Reading results")
def _collect(
    studies: Sequence[tuple[str, str, int]],
    trainings: Sequence[tuple[str, str, int]],
    latencies: Sequence[tuple[str, str, int]],
) -> Points:
    """Read again only if a folder has changed: names, paths and times are the cache's key."""
    return collect(
        [Path(path) for _, path, _ in studies],
        {name: Path(path) for name, path, _ in trainings},
        [Path(path) for _, path, _ in latencies],
    )


def _filtered(points: Points) -> pd.DataFrame:
    """The points that the filters leave."""
    table = points.table
    sources = list(dict.fromkeys(table["source"]))
    metrics = [key for key in (*METRICS, *SCORES) if any(q.metric == key for q in points.quantities.values())]
    metrics = list(dict.fromkeys(metrics))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect("Sources", sources, key="sources", bind="query-params", placeholder="all")
        kinds = st.multiselect("Kinds", KINDS, key="kinds", bind="query-params", placeholder="all")
        text = st.text_input(
            "Limits", key="limits", bind="query-params", max_chars=200, placeholder="macs < 3G, top1 > 80",
            help=HELP_LIMITS.format(keys=", ".join(f"`{key}`" for key in metrics)),
        )  # fmt: skip
    kept = table["kind"].isin(kinds or KINDS) & table["source"].isin(chosen or sources)
    try:
        kept &= within(table, points.quantities.values(), parse_limits(text, metrics))
    except ConfigError as error:
        st.error(plain(error), icon=":material/error:")
    return table[kept]


def _axes(table: pd.DataFrame, quantities: Mapping[str, Quantity]) -> tuple[Quantity, Quantity, str]:
    """The vertical and the horizontal quantity, which some points have both, and what colours show."""
    partners = {key: present(table[table[key].notna()], quantities) for key in quantities}
    paired = [key for key in quantities if len(partners[key]) > 1]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        y = _choose("Vertical", "y", paired, quantities, FIRST_METRICS[0])
        x = _choose("Horizontal", "x", [key for key in partners[y] if key != y], quantities, FIRST_METRICS[1])
        colored = st.selectbox("Colour", list(COLORED), key="colour", bind="query-params")
    return quantities[y], quantities[x], colored


def _choose(label: str, name: str, keys: Sequence[str], quantities: Mapping[str, Quantity], metric: str) -> str:
    first = next((place for place, key in enumerate(keys) if quantities[key].metric == metric), 0)
    return st.selectbox(label, keys, first, key=name, bind="query-params", format_func=lambda key: str(quantities[key]))


# -- charts ----------------------------------------------------------------------------------------------


def _draw_scatter(shown: pd.DataFrame, y: Quantity, x: Quantity, colored: str) -> pd.DataFrame:
    """The chart; returns the selected points."""
    data = scatter_data(shown, x, y, colored)
    chart = scatter_chart(data, x, y, scatter_titles(x, y, colored), colored)
    event = draw_chart(
        chart, f"scatter of {x.key}, {y.key}", title=f"{y.label} against {x.label}",
        conditions=scatter_conditions(data, x, y), data=scatter_values(data, x, y, colored),
        alt=f"Scatter plot of {y} against {x}: {len(data)} points, {data['front'].sum()} of them on the Pareto front.",
        on_select="rerun", selection_mode=["points"],
    )  # fmt: skip
    st.caption("Click on a point for its details, with Shift for several; scroll to zoom, double-click to reset.")
    rows = [point.get("row") for point in event["selection"].get("points", [])]
    return shown[shown.index.isin([row for row in rows if isinstance(row, int)])]


def _draw_parallel(
    table: pd.DataFrame, quantities: Mapping[str, Quantity], first: Sequence[Quantity], colored: str
) -> None:
    keys = list(quantities)
    chosen = st.multiselect(
        "Axes", keys, [quantity.key for quantity in first], format_func=lambda key: str(quantities[key]),
        key=f"axes of {first[0].key}, {first[1].key}", max_selections=8,
    )  # fmt: skip
    rows = table[table[chosen].notna().all(axis=1)]
    if len(chosen) < 2:
        st.info("Choose at least two axes.")
    elif rows.empty:
        st.info("No point has values of all these axes.")
    else:
        draw_chart(
            parallel_chart(rows, [quantities[key] for key in chosen], colored), "parallel coordinates",
            title=f"{len(rows):,} network{'s' * (len(rows) != 1)} with values of all {len(chosen)} quantities",
            conditions=parallel_conditions([quantities[key] for key in chosen]),
            data=rows[["name", "source", "kind", "family", *chosen]],
            alt=f"Parallel coordinates of {len(rows)} points on {len(chosen)} axes.",
        )  # fmt: skip


# -- table -----------------------------------------------------------------------------------------------


def _draw_table(rows: pd.DataFrame, quantities: Sequence[Quantity], everything: bool) -> pd.DataFrame:
    """The points as a table; returns the selected rows, which need no mouse."""
    st.subheader(f"All points ({len(rows):,})" if everything else f"Selected points ({len(rows):,})")
    shown = rows[["name", "source", "kind"]].copy()
    columns: dict[str, Any] = {"name": st.column_config.Column(width="medium", pinned=True)}
    for quantity in quantities:
        shown[quantity.title] = rows[quantity.key]
        if not quantity.unit:
            columns[quantity.title] = st.column_config.NumberColumn(format="compact", help=quantity.conditions)
    for name in ("branches", "attention", "ffn", "fusion", "config_id"):
        shown[name.replace("_", " ")] = rows[name]
    event = st.dataframe(
        shown.head(MAX_TABLE), hide_index=True, width="stretch", column_config=columns, placeholder="–",
        key=_table_key(shown), on_select="rerun", selection_mode="multi-row",
    )  # fmt: skip
    said = "Select rows for their details: click on their boxes, or move there with the arrow keys and press space."
    more = f" The first {MAX_TABLE:,} rows; set filters for others." if len(shown) > MAX_TABLE else ""
    st.caption(said + more)
    chosen = [row for row in event["selection"]["rows"] if row < len(rows)]
    return rows.iloc[chosen]


def _table_key(shown: pd.DataFrame) -> str:
    """Of a table with these rows: a selection is kept by position, and would be of other points in another table."""
    return f"table {hashlib.sha256(repr((shown.index.tolist(), list(shown))).encode()).hexdigest()[:16]}"
