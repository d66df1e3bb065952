"""Page "Studies": the results of a study, its trade-offs and its table."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from hrvit_lab import plots
from hrvit_lab.app.axes import is_logarithmic, plain_axis
from hrvit_lab.app.folders import find_results, results_root
from hrvit_lab.app.point_names import HEIGHT, PADDING, PLACES, WIDTH, place_names, positions
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import ConfigError
from hrvit_lab.files import read_bounded
from hrvit_lab.metrics import METRICS, PROXY, axis_label, format_value, metric_label
from hrvit_lab.plots.text import shorten
from hrvit_lab.study.columns import cell, comparisons
from hrvit_lab.study.quantities import measured
from hrvit_lab.study.report.differences import differences
from hrvit_lab.study.report.summary import remarks, summary
from hrvit_lab.study.results import MAX_FILE_BYTES, Results, read_results, records_of
from hrvit_lab.study.tables import DISTURBED, to_csv

MAX_NAMES = 20  # in the chart; hovering shows the others
MAX_STYLED = 1_000  # rows
PROXY_NOTE = (
    "Accuracy is a proxy: a short training from scratch on {dataset}. It compares variants at this training budget "
    "only, and cannot be compared with accuracies in the paper."
)
EMPTY = """There are no results in `{folder}` yet. Run a study, then reload this page:

```
python -m hrvit_lab.study branch_sweep
```

`python -m hrvit_lab.study --list` lists all studies. To open another folder of results, start the app with
`streamlit run app.py -- --results FOLDER`."""


def show() -> None:
    """Draw the page."""
    root = results_root(sys.argv[1:])
    folders = find_results(root)
    if not folders:
        st.title("Studies")
        st.info(EMPTY.format(folder=root.name), icon=":material/science:")
        return
    name = st.selectbox("Study", list(folders), key="study", width=360)
    try:
        results = _read(folders[name], (folders[name] / "table.csv").stat().st_mtime_ns)
    except ConfigError as error:
        st.title(plain(name))
        st.error(plain(error))
        return
    _draw(results, folders[name])


@st.cache_data(max_entries=16, show_spinner=False)
def _read(folder: Path, modified_ns: int) -> Results:
    """Read a study's folder again only when its table changed."""
    return read_results(folder)


def _draw(results: Results, folder: Path) -> None:
    st.title(plain(results.spec.title))
    st.markdown(plain(results.spec.question))
    with st.container(border=True):
        first, *others = summary(results.table, results.dataset, results.spec.compare_to)
        st.markdown(f"**{plain(first)}**")
        st.markdown(plain(" ".join(others)))
        if any(METRICS[key].per_seed for key in results.metrics):
            st.caption(PROXY_NOTE.format(dataset=plain(results.dataset)))

    _draw_tradeoff(results)

    st.subheader("All variants")
    _draw_table(results)
    left, right, _ = st.columns([1, 1, 3])
    left.download_button(
        "table.csv", to_csv(results.table), f"{results.name}.csv", "text/csv",
        icon=":material/download:", on_click="ignore", width="stretch",
    )  # fmt: skip
    if (page := _read_report(folder)) is not None:
        right.download_button(
            "Report (HTML)", page, f"{results.name}.html", "text/html",
            icon=":material/download:", on_click="ignore", width="stretch",
        )  # fmt: skip
    if (differ := differences(results)) is not None:
        st.subheader("What differs")
        st.markdown("\n\n".join(map(plain, differ.sentences)))
        st.dataframe(pd.DataFrame(differ.rows, columns=["change", *differ.head]), hide_index=True, width="stretch")
    if about := remarks(results):
        with st.expander(f"Remarks ({len(about)})", icon=":material/warning:"):
            st.table(pd.DataFrame(about, columns=["variant", "remark"]).map(plain), hide_index=True)
    with st.expander("Where it was measured", icon=":material/memory:"):
        st.json(list(map(dict, results.measured_in)) or dict(results.environment))


def _read_report(folder: Path) -> bytes | None:
    """The study's report, if it is a file of the folder itself: a link could lead anywhere."""
    try:
        return None if (folder / "report.html").is_symlink() else read_bounded(folder / "report.html", MAX_FILE_BYTES)
    except OSError:
        return None


def _draw_tradeoff(results: Results) -> None:
    keys = results.metrics
    if not results.comparable:
        st.info(
            "There is no chart: the costs of this study are at several input sizes, or of another network than the "
            "trained one."
        )
        return
    if len(keys) < 2:
        st.info("There is no chart: this study has values of fewer than two metrics.")
        return
    default_x, default_y = results.spec.axes_of_tradeoff
    with st.container(horizontal=True, vertical_alignment="bottom"):
        # A study of its own remembers its own choice.
        y = st.selectbox(
            "Vertical",
            keys,
            _index(keys, default_y, -1),
            format_func=lambda key: axis_label(key, results.dataset),
            key=f"y of {results.name}",
        )
        x = st.selectbox(
            "Horizontal",
            keys,
            _index(keys, default_x, 0),
            format_func=lambda key: axis_label(key, results.dataset),
            key=f"x of {results.name}",
        )
    rows = results.table[results.table[[x, y]].notna().all(axis=1)]
    if x == y:
        st.info("Choose two different metrics.")
    elif rows.empty:
        st.info("No variant has both metrics.")
    else:
        st.altair_chart(tradeoff_chart(results, x, y), width="stretch")
        st.caption(_chart_note(results, x, y, len(results.table) - len(rows)))


def chart_data(results: Results, x: str, y: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Points to draw, and the columns that hovering shows: {column: title}.

    Columns: `x, x_low, x_high, y, y_low, y_high, front, matching, disturbed, name, place` (of the name, "" if it is not
    drawn), and the texts. Vega reads dots and brackets in a column's name as paths, so the columns of texts get other
    names.
    """
    table = results.table[results.table[[x, y]].notna().all(axis=1)].reset_index(drop=True)
    said = {"variant": table["variant"].astype(str)}
    said |= {axis.replace("_", " "): table[axis].astype(str) for axis in results.axes}
    rows = records_of(table)
    for key in results.metrics:
        said[metric_label(key, results.dataset)] = pd.Series([cell(key, row) for row in rows], index=table.index)
    said["config"] = table["config_id"].astype(str)
    titles = {f"text{index}": title for index, title in enumerate(said)}
    (x_down, x_up), (y_down, y_up) = plots.spread(table, x), plots.spread(table, y)
    x_low = table[x] - x_down
    data = pd.DataFrame(
        {
            **dict(zip(titles, said.values(), strict=True)),
            "x": table[x], "x_low": x_low.clip(lower=table[x].min() / 10) if is_logarithmic(table[x]) else x_low,
            "x_high": table[x] + x_up,
            "y": table[y], "y_low": table[y] - y_down, "y_high": table[y] + y_up,
            "front": plots.pareto_front(table, x, y),
            "matching": table["matching"].astype(str) if "matching" in table else "",
            "disturbed": plots.is_disturbed(table, x, y),
        }
    )  # fmt: skip
    matchings = data["matching"]  # shown by colour
    data["name"] = [
        shorten(name.removesuffix(f", {matching}")) for name, matching in zip(said["variant"], matchings, strict=True)
    ]
    data["place"] = _places(data, _free_corner(x, y)) if len(data) else ""
    return data, titles


def _places(data: pd.DataFrame, first: str) -> list[str]:
    """Where the names are drawn; those of points on the front are placed before others."""
    across, up = (
        positions(
            data[axis].to_numpy(dtype=float), data[f"{axis}_low"].min(), data[f"{axis}_high"].max(), length, padding,
            logarithmic=axis == "x" and is_logarithmic(data["x"]),
        )
        for axis, length, padding in zip("xy", (WIDTH, HEIGHT), PADDING, strict=True)
    )  # fmt: skip
    order = np.argsort(~data["front"].to_numpy(dtype=bool), kind="stable")[:MAX_NAMES]
    return place_names(np.stack([across, HEIGHT - up], axis=1), data["name"].tolist(), order.tolist(), first)


def _free_corner(x: str, y: str) -> str:
    """The side of a point on the front that no other point is on: where both metrics are better."""
    return (
        f"{'upper' if METRICS[y].better == 'higher' else 'lower'} {'left' if METRICS[x].better == 'lower' else 'right'}"
    )


def tradeoff_chart(results: Results, x: str, y: str) -> alt.LayerChart | alt.FacetChart:
    """Two metrics against each other: points with their spreads, the Pareto front, everything else on hovering."""
    data, titles = chart_data(results, x, y)
    several = data["matching"].nunique() > 1
    color = alt.Color(
        "matching:N", title=None, sort=None, scale=alt.Scale(range=list(plots.SERIES)),
        legend=alt.Legend(orient="top", symbolStrokeWidth=0, symbolOpacity=1) if several else None,
    )  # fmt: skip
    x_axis = alt.X(
        "x:Q", title=axis_title(x, results), axis=plain_axis(METRICS[x].unit, grid=False),
        scale=alt.Scale(
            type="log" if is_logarithmic(data["x"]) else "linear", zero=False, nice=False, padding=PADDING[0]
        ),
    )  # fmt: skip
    y_axis = alt.Y(
        "y:Q", title=axis_title(y, results), axis=plain_axis(METRICS[y].unit, grid=True),
        scale=alt.Scale(zero=False, nice=False, padding=PADDING[1]),
    )  # fmt: skip
    tooltip = [alt.Tooltip(f"{column}:N", title=title) for column, title in titles.items()]
    base = alt.Chart(data)
    front = base.transform_filter("datum.front").mark_line(
        interpolate="step-after" if METRICS[x].better == "lower" else "step-before",
        strokeWidth=1, color="gray", opacity=0.7, tooltip=None,
    ).encode(x_axis, y_axis)  # fmt: skip
    bar = base.mark_rule(opacity=0.45)
    x_bars = bar.encode(alt.X("x_low:Q"), alt.X2("x_high:Q"), y_axis, color=color, tooltip=tooltip)
    y_bars = bar.encode(x_axis, alt.Y("y_low:Q"), alt.Y2("y_high:Q"), color=color, tooltip=tooltip)
    points = base.mark_point(size=90, strokeWidth=2, opacity=1).encode(
        x_axis, y_axis, color=color, fill=alt.condition("datum.front", color, alt.value("transparent")),
        tooltip=tooltip,
    )  # fmt: skip
    crosses = base.transform_filter("datum.disturbed").mark_point(
        shape="cross", angle=45, size=160, color="gray", filled=True
    ).encode(x_axis, y_axis, tooltip=tooltip)  # fmt: skip
    names = [
        base.transform_filter(alt.datum.place == place)
        .mark_text(align=align, dx=dx, dy=dy, fontSize=12, color="gray")
        .encode(x_axis, y_axis, text="name:N", tooltip=tooltip)
        for place, (dx, dy, align) in PLACES.items()
    ]
    return alt.layer(front, x_bars, y_bars, points, crosses, *names).properties(height=460)


def axis_title(key: str, results: Results) -> list[str]:
    """A metric with its unit, and on a second line the conditions of a latency or memory measurement."""
    conditions = [measured(key, results).conditions] if METRICS[key].group in ("latency", "memory") else []
    return [axis_label(key, results.dataset), *conditions]


def _chart_note(results: Results, x: str, y: str, missing: int) -> str:
    said = ["Filled points and the line: Pareto front of the central values. Hover over a point for all its values."]
    if any(f"{key}_std" in results.table for key in (x, y)):
        said.append("Bars: ± 1 standard deviation over seeds. The text above says which differences are significant.")
    if any(f"{key}_p10" in results.table for key in (x, y)):
        said.append("Bars of latency: 10th to 90th percentile.")
    if plots.is_disturbed(results.table, x, y).any():
        said.append("Crosses: unreliable measurements, excluded from the front.")
    if missing:
        said.append(f"{missing} of {len(results.table)} variants have no value and are not shown.")
    return " ".join(said)


def _draw_table(results: Results) -> None:
    """Numbers sort as numbers and read with prefix, unit and spread."""
    shown = pd.DataFrame({"variant": results.table["variant"]})
    formats: dict[Any, Any] = {}
    for axis in results.axes:
        shown[axis.replace("_", " ")] = results.table[axis]
    for key in results.metrics:
        label = metric_label(key, results.dataset)
        shown[label] = results.table[key]
        formats[label] = partial(format_value, METRICS[key])
        if f"{key}_std" in results.table:
            spread = f"{METRICS[key].label.removesuffix(PROXY)} ± std"
            shown[spread] = results.table[f"{key}_std"]
            formats[spread] = "± {:.2g}"
        if f"{key}_{DISTURBED}" in results.table:
            shown[f"{label}: disturbed"] = results.table[f"{key}_{DISTURBED}"]
    for column in comparisons(results.spec, results.table):
        shown[column.title] = column.texts
    shown["status"] = results.table["status"].str.partition(":")[0]
    columns: dict[str, Any] = {"variant": st.column_config.Column(width="medium", pinned=True)}
    if len(shown) > MAX_STYLED:  # formatting cell by cell takes seconds there
        columns |= {label: st.column_config.NumberColumn(format="compact") for label in formats}
        st.dataframe(shown, hide_index=True, width="stretch", column_config=columns, placeholder="–")
    else:
        styled = shown.style.format(formats)
        st.dataframe(styled, hide_index=True, width="stretch", column_config=columns, placeholder="–")


def _index(keys: list[str], key: str, fallback: int) -> int:
    return keys.index(key) if key in keys else range(len(keys))[fallback]
