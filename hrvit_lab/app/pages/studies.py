"""Page "Studies": the results of a study, its trade-offs and its table."""

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from hrvit_lab import plots
from hrvit_lab.app.chart_view import draw_chart
from hrvit_lab.app.folders import REFERENCE, find_results, results_root
from hrvit_lab.app.navigate import link_to_run
from hrvit_lab.app.points_chart import (
    ERRORS,
    ERRORS_HELP,
    as_error,
    error_rates,
    merged,
    scatter_chart,
    scatter_conditions,
    scatter_values,
    with_places,
)
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import ConfigError
from hrvit_lab.files import read_bounded
from hrvit_lab.metrics import METRICS, PROXY, Metric, axis_label, format_value, metric_label
from hrvit_lab.study.columns import cell, comparisons
from hrvit_lab.study.point_rows import family_of, kind_of
from hrvit_lab.study.quantities import Quantity, measured
from hrvit_lab.study.report.differences import differences
from hrvit_lab.study.report.summary import remarks, summary
from hrvit_lab.study.results import MAX_FILE_BYTES, Results, read_results, records_of
from hrvit_lab.study.tables import DISTURBED, to_csv

MAX_STYLED = 1_000  # rows
PROXY_NOTE = (
    "Accuracy is a proxy: a short training from scratch on {dataset}. It compares variants at this training budget "
    "only, and cannot be compared with accuracies in the paper."
)
EMPTY = """There are no results of your own in `{folder}` yet. Start a study on the page *Run*, or in a terminal:
`hrvit-lab study branch_sweep`. To open another folder of results, start the app with `--results FOLDER`."""
SHIPPED = "{name}, with the repository"


def show() -> None:
    """Draw the page."""
    root = results_root(sys.argv[1:])
    own = find_results(root)
    shipped = {name: path for name, path in sorted(find_results(REFERENCE).items()) if name not in own}
    folders = own | shipped
    if not own:
        st.info(EMPTY.format(folder=root.name), icon=":material/science:")
        link_to_run()
    if not folders:
        return
    name = st.selectbox(
        "Study", list(folders), key="study", width=360,
        format_func=lambda name: SHIPPED.format(name=name) if name in shipped else name,
    )  # fmt: skip
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
    draw_table(results)
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
        draw_tradeoff(results, x, y)
        st.caption(_chart_note(results, x, y, len(results.table) - len(rows)))


def chart_data(results: Results, x: str, y: str, errors: bool = False) -> tuple[pd.DataFrame, dict[str, str]]:
    """Points for ``scatter_chart``, and what hovering shows: titles by column.

    Variants that are one network are one point. With ``errors``, ``y`` is 100 % minus the score.

    Vega reads dots and brackets in a column's name as paths, so the columns of texts get other names.
    """
    table = results.table[results.table[[x, y]].notna().all(axis=1)].reset_index(drop=True)
    said = {"variant": table["variant"].astype(str)}
    said |= {axis.replace("_", " "): table[axis].astype(str) for axis in results.axes}
    rows = records_of(table)
    for key in results.metrics:
        said[metric_label(key, results.dataset)] = pd.Series([cell(key, row) for row in rows], index=table.index)
    said["config"] = table["config_id"].astype(str)
    titles = {f"text{index}": title for index, title in enumerate(said)}
    data = pd.DataFrame({"row": table.index, **dict(zip(titles, said.values(), strict=True))})
    data["group"] = table["matching"].astype(str) if "matching" in table else ""
    configs = (results.configs.get(name) for name in table["variant"])
    known = [config if isinstance(config, Mapping) else None for config in configs]
    data["kind"] = [kind_of(config) for config in known]
    data["family"] = [family_of(config, "hrvit") for config in known]
    data["name"] = [  # without the matching, which is shown by colour
        name.removesuffix(f", {matching}") for name, matching in zip(said["variant"], data["group"], strict=True)
    ]
    for axis, key in (("x", x), ("y", y)):
        down, up = plots.spread(table, key)
        data[axis], data[f"{axis}_low"], data[f"{axis}_high"] = table[key], table[key] - down, table[key] + up
    data["front"] = plots.pareto_front(table, x, y)
    data["disturbed"] = plots.is_disturbed(table, x, y)
    full = data.assign(name=said["variant"], config_id=table["config_id"])
    data = merged(error_rates(full) if errors else full, data["name"])
    return with_places(data, quantity(results, x), quantity(results, y, errors)), titles


def tradeoff_chart(
    results: Results, x: str, y: str, errors: bool = False
) -> tuple[alt.LayerChart | alt.FacetChart, pd.DataFrame]:
    """Two metrics against each other: points with their spreads, the Pareto front, everything else on hovering.

    Returns:
        The chart, and its data.
    """
    data, titles = chart_data(results, x, y, errors)
    return scatter_chart(data, quantity(results, x), quantity(results, y, errors), titles, "matching"), data


def draw_tradeoff(results: Results, x: str, y: str) -> None:
    """Draw the chart of two metrics against each other, with a choice of error rates in place of a score."""
    errors = METRICS[y].unit == "%" and st.toggle(ERRORS, key=f"error of {results.name}", help=ERRORS_HELP)
    chart, data = tradeoff_chart(results, x, y, errors)
    across, up = quantity(results, x), quantity(results, y, errors)
    draw_chart(
        chart, f"{results.name}: {y} against {x}",
        title=f"{up.label} against {across.label}", conditions=scatter_conditions(data, across, up),
        data=scatter_values(data, across, up, "matching"), alt=f"{y} against {x} of {len(data)} variants.",
    )  # fmt: skip


def quantity(results: Results, key: str, errors: bool = False) -> Quantity:
    """What an axis shows of a metric, or of its error rate; the label says the data set of a proxy."""
    found, label = measured(key, results), metric_label(key, results.dataset)
    if not errors:
        return replace(found, label=label)
    error = as_error(found)
    return replace(error, label=label.replace(found.label, error.label, 1))


def _chart_note(results: Results, x: str, y: str, missing: int) -> str:
    said = ["Hover over a point for all its values. The front is that of the central values."]
    if any(f"{key}_std" in results.table for key in (x, y)):
        said.append("The text above says which differences are significant.")
    if missing:
        said.append(f"{missing} of {len(results.table)} variants have no value and are not shown.")
    return " ".join(said)


def draw_table(results: Results) -> None:
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
        if {f"{key}_p10", f"{key}_p90"} <= set(results.table):
            ends = zip(results.table[f"{key}_p10"], results.table[f"{key}_p90"], strict=True)
            shown[f"{METRICS[key].label}, p10–p90"] = [_range(METRICS[key], low, high) for low, high in ends]
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


def _range(metric: Metric, low: float, high: float) -> str | None:
    """The 10th and 90th percentile with their unit; None if they are unknown."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return f"{format_value(metric, low)} to {format_value(metric, high)}"


def _index(keys: list[str], key: str, fallback: int) -> int:
    return keys.index(key) if key in keys else range(len(keys))[fallback]
