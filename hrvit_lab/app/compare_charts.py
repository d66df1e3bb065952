"""Charts of the page "Compare"."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from hrvit_lab.app.axes import legend, plain_axis
from hrvit_lab.charts import MUTED, SERIES

Chart = alt.LayerChart | alt.FacetChart

MARKS = ("circle", "square", "diamond", "triangle-up")
MORE, LESS = SERIES[1], SERIES[0]
ROW, FRAME = 34, 100
"""Height of a row, and of axis, title and legend, in pixels."""


def model_color(names: Sequence[str], named: bool = True) -> alt.Color:
    """A colour for each model, in the order of the selection; safe for colour blindness."""
    return alt.Color(
        "model:N", title=None, sort=list(names),
        scale=alt.Scale(domain=list(names), range=list(SERIES[: len(names)])),
        legend=legend("top", names) if named else None,
    )  # fmt: skip


def model_shape(names: Sequence[str], named: bool = True) -> alt.Shape:
    """A shape for each model, beside its colour."""
    return alt.Shape(
        "model:N", title=None, sort=list(names),
        scale=alt.Scale(domain=list(names), range=list(MARKS[: len(names)])),
        legend=legend("top", names) if named else None,
    )  # fmt: skip


def ratio_chart(rows: pd.DataFrame, names: Sequence[str]) -> Chart:
    """Costs divided by those of the first model, on a logarithmic axis: a row for each cost, a point for each model.

    Args:
        rows: of ``compared.cost_rows``.
    """
    data = rows.dropna(subset=["ratio"])
    data = data[data["ratio"] > 0]
    low, high = min(0.8, data["ratio"].min()), max(1.25, data["ratio"].max())
    x = alt.X(
        "ratio:Q", title=f"cost divided by that of {names[0]}",
        scale=alt.Scale(type="log", domain=[low / 1.1, high * 1.1], nice=False),
        axis=alt.Axis(format="~g", values=_ratios(low / 1.1, high * 1.1), grid=True),
    )  # fmt: skip
    y = alt.Y("cost:N", title=None, sort=list(dict.fromkeys(rows["cost"])), axis=alt.Axis(labelLimit=180))
    tooltip = [
        alt.Tooltip("model:N"), alt.Tooltip("cost:N"), alt.Tooltip("text:N", title="value"),
        alt.Tooltip("ratio:Q", title=f"× {names[0]}", format=".3f"),
    ]  # fmt: skip
    base = alt.Chart(data)
    spans = base.mark_rule(color=MUTED, opacity=0.6, strokeWidth=2, tooltip=None).encode(
        alt.X("min(ratio):Q"), alt.X2("max(ratio):Q"), y
    )
    points = base.mark_point(size=110, filled=True, opacity=1).encode(
        x, y, color=model_color(names), shape=model_shape(names), tooltip=tooltip
    )
    return alt.layer(spans, points).properties(height=ROW * data["cost"].nunique() + FRAME)


def _ratios(low: float, high: float) -> list[float]:
    """Values of ticks of a ratio's axis."""
    near = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 3, 4, 5, 7, 10]
    far = [number * 10.0**power for power in range(-4, 5) for number in (1, 2, 5)]
    return [step for step in (near if high / low < 12 else far) if low <= step <= high]


def waterfall_chart(steps: pd.DataFrame, title: str) -> Chart:
    """Bars from the first total to the second, from top to bottom; more is orange, less is blue, with signs.

    Args:
        steps: of ``compared.waterfall``.
        title: of the axis.
    """
    labels = list(steps["label"].where(~steps["label"].duplicated(), steps["label"] + " "))
    ends = steps[["start", "end"]]
    data = steps.assign(label=labels, low=ends.min(axis=1), high=ends.max(axis=1))
    color = alt.Color(
        "kind:N", title=None, legend=alt.Legend(orient="top"),
        scale=alt.Scale(domain=["total", "more", "less"], range=[MUTED, MORE, LESS]),
    )  # fmt: skip
    x = alt.X(
        "low:Q", title=title, axis=plain_axis("", grid=True),
        scale=alt.Scale(domain=[0, data["high"].max() * 1.12], nice=False),
    )  # fmt: skip
    y = alt.Y("label:N", title=None, sort=labels, axis=alt.Axis(labelLimit=200))
    base = alt.Chart(data)
    bars = base.mark_bar(height={"band": 0.66}).encode(
        x, alt.X2("high:Q"), y, color=color,
        tooltip=[alt.Tooltip("label:N", title="group"), alt.Tooltip("text:N", title="value")],
    )  # fmt: skip
    texts = base.mark_text(align="left", dx=5, color="gray", fontSize=12, tooltip=None).encode(
        alt.X("high:Q"), y, text="text:N"
    )
    return alt.layer(bars, texts).properties(height=ROW * len(data) + FRAME)


def distribution_chart(samples: pd.DataFrame, summary: pd.DataFrame, names: Sequence[str]) -> Chart:
    """All times of each model as ticks, 10th to 90th percentile as a bar, the median with its 95 % interval.

    Args:
        samples, summary: of ``compared_race``.
    """
    rows = list(summary["model"])
    largest = summary["p90"].max() * 1.15
    inside = samples[samples["ms"] <= largest]
    y = alt.Y("model:N", title=None, sort=rows, axis=alt.Axis(labelLimit=200))
    x = alt.X(
        "ms:Q", title="latency of a batch, ms",
        scale=alt.Scale(zero=False, nice=False, padding=12), axis=plain_axis("ms", grid=True),
    )  # fmt: skip
    color = model_color(names, named=False)
    ticks = alt.Chart(inside).mark_tick(thickness=1, opacity=0.25, height={"band": 0.7}, tooltip=None).encode(
        x, y, color=color
    )  # fmt: skip
    base = alt.Chart(summary)
    spread = base.mark_rule(strokeWidth=6, opacity=0.45, tooltip=None).encode(
        alt.X("p10:Q"), alt.X2("p90:Q"), y, color=color
    )
    interval = base.mark_rule(color="gray", strokeWidth=2, tooltip=None).encode(alt.X("low:Q"), alt.X2("high:Q"), y)
    points = base.mark_point(size=120, filled=True, opacity=1).encode(
        alt.X("median:Q"), y, color=color, shape=model_shape(names, named=False),
        tooltip=[
            alt.Tooltip("model:N"), alt.Tooltip("median:Q", format=".4g", title="median, ms"),
            alt.Tooltip("low:Q", format=".4g", title="95 % from"), alt.Tooltip("high:Q", format=".4g", title="to"),
            alt.Tooltip("p10:Q", format=".4g", title="10th percentile"),
            alt.Tooltip("p90:Q", format=".4g", title="90th percentile"),
        ],
    )  # fmt: skip
    return alt.layer(ticks, spread, interval, points).properties(height=len(rows) * 2 * ROW + FRAME)


def interval_chart(data: pd.DataFrame, value: str, title: str, none: float) -> Chart:
    """Values with their 95 % intervals, a row for each, and a line where there is no difference.

    Args:
        data: columns ``model``, ``low``, ``high``, ``verdict`` and the one of ``value``.
        none: the value of no difference.
    """
    rows = list(data["model"])
    y = alt.Y("model:N", title=None, sort=rows, axis=alt.Axis(labelLimit=200))
    x = alt.X(f"{value}:Q", title=title, scale=alt.Scale(zero=False, padding=16), axis=plain_axis("x", grid=True))
    tooltip = [
        alt.Tooltip("model:N"), alt.Tooltip(f"{value}:Q", format=".4g"), alt.Tooltip("low:Q", format=".4g"),
        alt.Tooltip("high:Q", format=".4g"), alt.Tooltip("verdict:N"),
    ]  # fmt: skip
    base = alt.Chart(data)
    line = alt.Chart(pd.DataFrame({value: [none]})).mark_rule(strokeDash=[5, 4], color="gray", tooltip=None).encode(x)
    bars = base.mark_rule(strokeWidth=3, opacity=0.6, color=SERIES[0], tooltip=None).encode(
        alt.X("low:Q"), alt.X2("high:Q"), y
    )
    points = base.mark_point(size=110, filled=True, opacity=1, color=SERIES[0], shape="diamond").encode(
        x, y, tooltip=tooltip
    )
    return alt.layer(line, bars, points).properties(height=len(rows) * ROW + FRAME)
