"""What the network costs: figures with their change against a preset, the drawing, and bars by stage or branch."""

from collections.abc import Callable
from functools import partial

import altair as alt
import pandas as pd
import streamlit as st

from hrvit_lab import plots
from hrvit_lab.app.builder.predicted import LATENCY, has_profile, predicted
from hrvit_lab.app.builder.state import GROUPS, Draft, edit, shown
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import ConfigError, HRViTConfig, preset
from hrvit_lab.cost.count import Counts, count
from hrvit_lab.metrics import METRICS, axis_label, format_value
from hrvit_lab.plots.diagram import COSTS as DRAWN

COSTS = tuple(key for key, metric in METRICS.items() if metric.group == "cost")
SMALLEST_CHANGE = 0.0005


def draw_costs(counts: Counts, against: str) -> None:
    """All costs, with their change against a preset."""
    try:
        reference = count(preset(against), counts.resolution)
    except ConfigError:
        reference = None  # the preset does not accept this resolution
    with st.container(key="costs"):
        for key in COSTS:
            value = getattr(counts, key)
            change = value / getattr(reference, key) - 1 if reference else 0
            label = METRICS[key].label
            st.metric(
                label[:1].upper() + label[1:], format_value(METRICS[key], value),
                f"{change:+.1%}" if abs(change) >= SMALLEST_CHANGE else None,
                delta_color="inverse", help=METRICS[key].doc,
            )  # fmt: skip
    height, width = counts.resolution
    st.caption(f"One image of {height} × {width} px. Percentages: change against {plain(against)}.")


def draw_drawing(config: HRViTConfig, counts: Counts, cost: str, values: pd.DataFrame) -> None:
    """Branches and stages, coloured by a cost."""
    st.image(
        plots.diagram(config, counts.resolution, cost, dark=st.context.theme.type == "dark", values=values),
        width="stretch", alt=f"Branches and stages, coloured by share of {METRICS[cost].label}.",
    )  # fmt: skip


def choose_view(draft: Draft) -> None:
    """Which cost the colours and bars show."""
    offered = (*DRAWN, LATENCY) if has_profile() or draft.cost == LATENCY else DRAWN
    with st.container(horizontal=True, vertical_alignment="bottom"):
        _choice("cost", "Color", offered, draft.cost, lambda key: METRICS[key].label)
        _choice("by", "Bars", GROUPS, draft.by, str)


def _choice(name: str, label: str, options: tuple[str, ...], value: str, words: Callable[[str], str]) -> None:
    st.segmented_control(
        label, options, key=shown(f"view {name}", value), required=True, format_func=words,
        on_change=partial(_chosen, name), label_visibility="collapsed",
    )  # fmt: skip


def _chosen(name: str) -> None:
    value = st.session_state[f"view {name}"]
    edit(lambda draft: draft._replace(**{name: value}))


def conditions(key: str, config: HRViTConfig, size: tuple[int, int]) -> str:
    """The conditions of a cost of ``cost_chart``."""
    if key == LATENCY:
        return f"predicted from parts: {predicted(config, size).conditions}"
    height, width = size
    return f"one image of {height} × {width} px, counted in closed form; memory in float32"


def cost_chart(values: pd.DataFrame, key: str, by: str) -> alt.Chart:
    """A cost by part, stacked: one bar per stage or branch."""
    rows = values.groupby([by, "part"], sort=False)["value"].sum().reset_index()
    rows = rows[rows["value"] > 0]
    colors = plots.part_colors(rows["part"])
    bars = [f"{by} {place}" if isinstance(place, int) else str(place) for place in rows[by]]
    data = pd.DataFrame(
        {
            "bar": bars,
            "part": rows["part"].map(plots.part_label),
            "order": rows["part"].map(list(colors).index),
            "value": rows["value"],
            "text": [format_value(METRICS[key], value) for value in rows["value"]],
            "share": rows["value"] / rows["value"].sum(),
        }
    )
    color = alt.Color(
        "part:N", title=None, legend=alt.Legend(orient="bottom", columns=alt.ExprRef("max(2, floor(width / 150))")),
        scale=alt.Scale(domain=list(map(plots.part_label, colors)), range=list(colors.values())),
    )  # fmt: skip
    tooltip = [
        alt.Tooltip("bar:N", title=by),
        alt.Tooltip("part:N"),
        alt.Tooltip("text:N", title=METRICS[key].label),
        alt.Tooltip("share:Q", format=".1%", title="share of the total"),
    ]
    ticks = alt.Axis(tickCount=6, labelExpr="datum.value == 0 ? '0' : format(datum.value, '~s')")
    return (
        alt.Chart(data, height=120 + 34 * len(set(bars)))
        .mark_bar(height={"band": 0.72})
        .encode(
            alt.X("value:Q", title=axis_label(key), axis=ticks),
            alt.Y("bar:N", sort=None, title=None),
            color=color,
            order=alt.Order("order:Q"),
            tooltip=tooltip,
        )
    )
