"""Page "Published": printed figures of the networks and their accuracies, with our counts beside them."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from hrvit_lab.app.ablations import draw_ablations
from hrvit_lab.app.chart_view import draw_chart
from hrvit_lab.app.navigate import inside_label, link_to_build, link_to_compare, link_to_look_inside
from hrvit_lab.app.points_chart import scatter_chart, scatter_conditions, scatter_data, scatter_titles, scatter_values
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.metrics import METRICS
from hrvit_lab.study.analysis import results
from hrvit_lab.study.columns import AGREES, cell, comparisons
from hrvit_lab.study.files import find_study, load_study
from hrvit_lab.study.points import Points, collect
from hrvit_lab.study.published_points import AS_PUBLISHED, absent
from hrvit_lab.study.quantities import Quantity
from hrvit_lab.study.results import Results, records_of
from hrvit_lab.study.space import expand
from hrvit_lab.study.trials import computed, plan

STUDY = "published"
OURS = ("params", "macs", "macs_paper")
INTRODUCTION = """Accuracies are as printed in papers and releases. Parameters and MACs are ours, computed in closed
form, beside the printed ones. Where they differ, the remark gives the reason if it is known."""


def show() -> None:
    """Draw the page."""
    st.markdown(INTRODUCTION)
    _draw_chart(_points())
    st.subheader("Printed counts and ours")
    try:
        counted = _counted()
    except ConfigError as error:  # an installed package comes without study files
        st.info(plain(str(error)))
    else:
        _draw_table(counted)
    draw_ablations()


@st.cache_data(show_spinner=False)
def _points() -> Points:
    return collect()


@st.cache_data(show_spinner=False)
def _counted() -> Results:
    """The study ``published``, whose costs are computed and not stored.

    Raises:
        ConfigError: if there is no such study.
    """
    path = find_study(STUDY)
    spec = load_study(path)
    expansion = expand(spec)
    planned = plan(spec, expansion.variants, hardware="")
    return results(path.parent, spec, expansion, planned, computed(planned), {})


def _draw_chart(points: Points) -> None:
    """Printed accuracy against printed cost."""
    scores = [q for q in points.quantities.values() if q.unit == "%" and _costs(points, q)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        y = st.segmented_control(
            "Accuracy", [q.key for q in scores], default=scores[0].key, key="accuracy", required=True,
            bind="query-params", format_func=lambda key: str(points.quantities[key]).removesuffix(", published)") + ")",
        )  # fmt: skip
        costs = _costs(points, points.quantities[y or scores[0].key])
        x = st.segmented_control(
            "Cost", [q.key for q in costs], default=costs[0].key, key=f"cost of {y}", required=True,
            format_func=lambda key: _cost_label(points.quantities[key], costs),
        )  # fmt: skip
    vertical, horizontal = points.quantities[y or scores[0].key], points.quantities[x or costs[0].key]
    shown = points.table[points.table[[vertical.key, horizontal.key]].notna().all(axis=1)]
    data = scatter_data(shown, horizontal, vertical, "family")
    draw_chart(
        scatter_chart(data, horizontal, vertical, scatter_titles(horizontal, vertical, "family"), "family"),
        f"printed {vertical.key} against {horizontal.key}",
        title=f"{vertical.label} against {horizontal.label}, as published",
        conditions=f"{scatter_conditions(data, horizontal, vertical)} Sources count and train differently.",
        data=scatter_values(data, horizontal, vertical, "family"),
        alt=f"Scatter plot of printed {vertical} against {horizontal} of {len(data)} networks.",
    )  # fmt: skip
    if missing := absent(vertical, horizontal):
        st.caption(plain(f"Not in this chart: {'; '.join(missing)}."))


def _cost_label(cost: Quantity, offered: Sequence[Quantity]) -> str:
    """Its name; with the input size if the same cost is printed for several."""
    several = sum(each.metric == cost.metric for each in offered) > 1
    return f"{cost.label} at {cost.conditions.removesuffix(AS_PUBLISHED)}" if several else cost.label


def _costs(points: Points, score: Quantity) -> Sequence[Quantity]:
    """Costs that at least two points have printed beside this score, MACs first."""
    rows = points.table[points.table[score.key].notna()]
    found = [q for q in points.quantities.values() if q.metric in ("macs", "params") and rows[q.key].notna().sum() > 1]
    return sorted(found, key=lambda quantity: quantity.metric)


def _draw_table(counted: Results) -> None:
    rows = records_of(counted.table)
    shown = pd.DataFrame({"network": counted.table["variant"]})
    for column in comparisons(counted.spec, counted.table):
        if column.metric is None:
            shown[column.title] = column.texts
    for key in OURS:
        shown[f"{METRICS[key].label}, ours"] = [cell(key, row) for row in rows]
    for column in comparisons(counted.spec, counted.table):
        if column.metric is not None:
            shown[column.title] = column.texts
    shown["remark"] = [str(row["note"]) if pd.notna(row.get("note")) else "" for row in rows]
    event = st.dataframe(
        shown, hide_index=True, width="stretch", key="rows", on_select="rerun", selection_mode="single-row",
        height=38 * min(len(shown), 16) + 3,
        column_config={"network": st.column_config.Column(width="medium", pinned=True)},
    )  # fmt: skip
    st.caption(f"{AGREES}: our count, rounded to the printed digits, is the printed one. Select a row to open it.")
    for chosen in event["selection"]["rows"]:
        if remark := shown["remark"].iloc[chosen]:
            st.markdown(plain(remark))
        if (config := _config(counted, str(rows[chosen]["variant"]))) is not None:
            _draw_links(config)


def _draw_links(config: HRViTConfig) -> None:
    with st.container(horizontal=True):
        link_to_build(config)
        link_to_compare([config])
        if (label := inside_label(config)) is not None:
            link_to_look_inside([label])


def _config(counted: Results, name: str) -> HRViTConfig | None:
    fields = counted.configs.get(name)
    return HRViTConfig.from_dict(fields) if fields is not None and "model" not in fields else None
