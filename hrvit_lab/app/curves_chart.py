"""Charts of trainings: a value over epochs or steps, a line for each network."""

import altair as alt
import pandas as pd

from hrvit_lab.app.axes import legend, plain_axis, with_legend
from hrvit_lab.app.point_groups import MAX_COLORS
from hrvit_lab.charts import MUTED, SERIES

OTHERS = "others"
PLOT = 380
"""Height of the plot with its axis and a legend of two rows, in pixels."""

MARKS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-right", "triangle-left")


def study_curves(curves: pd.DataFrame, score: str) -> pd.DataFrame:
    """Means over seeds, a row for each variant and epoch: ``variant``, ``epoch``, ``value``, ``low``, ``high``, ``n``.

    ``low`` and ``high`` are the smallest and the largest value of a seed.

    Args:
        curves: of a study's results, with ``variant``, ``seed``, ``epoch`` and ``val_SCORE``.
    """
    value = f"val_{score}"
    if value not in curves or curves[value].dropna().empty:
        return pd.DataFrame(columns=["variant", "epoch", "value", "low", "high", "n"])
    groups = curves.dropna(subset=[value]).groupby(["variant", "epoch"], sort=False)[value]
    return groups.agg(value="mean", low="min", high="max", n="count").reset_index()


def curves_chart(data: pd.DataFrame, x: str, x_title: str, y_title: str, unit: str) -> alt.LayerChart | alt.FacetChart:
    """Lines with a point at each value; colour and shape show the network.

    Args:
        data: columns ``variant``, ``value``, ``low``, ``high``, ``n`` and the one of ``x``.
        unit: of the values.
    """
    names = list(dict.fromkeys(data["variant"]))
    shown = names if len(names) <= MAX_COLORS else names[: MAX_COLORS - 1]
    data = data.assign(
        group=[name if name in shown else OTHERS for name in data["variant"]],
        text=[f"{value:.4g} {unit}".rstrip() for value in data["value"]],
        spread=[
            f"{low:.4g} to {high:.4g} {unit}".rstrip() for low, high in zip(data["low"], data["high"], strict=True)
        ],
    )
    domain = [*shown, *([OTHERS] if len(shown) < len(names) else [])]
    colors = [*SERIES[: len(shown)], *([MUTED] if len(shown) < len(names) else [])]
    shown_as = legend("bottom", domain)
    color = alt.Color("group:N", title=None, sort=domain, scale=alt.Scale(domain=domain, range=colors), legend=shown_as)
    shape = alt.Shape(
        "group:N", title=None, sort=domain, legend=shown_as,
        scale=alt.Scale(domain=domain, range=[MARKS[place % len(MARKS)] for place in range(len(domain))]),
    )  # fmt: skip
    whole = data[x].nunique() <= 12
    ticks = alt.Axis(values=sorted(data[x].unique()), format="~g", grid=False) if whole else plain_axis("", grid=False)
    across = alt.X(f"{x}:Q", title=x_title, axis=ticks, scale=alt.Scale(zero=False, nice=False, padding=12))
    up = alt.Y(
        "value:Q", title=y_title, axis=plain_axis(unit, grid=True), scale=alt.Scale(zero=False, nice=False, padding=12)
    )
    tooltip = [
        alt.Tooltip("variant:N"), alt.Tooltip(f"{x}:Q", title=x_title), alt.Tooltip("text:N", title="mean"),
        alt.Tooltip("spread:N", title="seeds"), alt.Tooltip("n:Q", title="number of seeds"),
    ]  # fmt: skip
    base = alt.Chart(data)
    lines = base.mark_line(strokeWidth=2, opacity=0.85, tooltip=None).encode(
        across, up, color=color, detail="variant:N"
    )
    points = base.mark_point(size=60, filled=True, opacity=1).encode(
        across, up, color=color, shape=shape, tooltip=tooltip
    )
    bars = base.transform_filter("datum.low != datum.high").mark_rule(opacity=0.4, tooltip=None).encode(
        across, alt.Y("low:Q"), alt.Y2("high:Q"), color=color
    )  # fmt: skip
    return alt.layer(bars, lines, points).properties(height=with_legend(PLOT, len(domain)))
