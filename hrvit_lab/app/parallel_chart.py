"""Parallel coordinates: a line for each point over several axes."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrvit_lab.app.axes import is_logarithmic, with_legend
from hrvit_lab.app.point_groups import COLORED, color_channel, dash_channel, groups
from hrvit_lab.app.points_chart import value_text
from hrvit_lab.study.quantities import Quantity


def parallel_chart(
    table: pd.DataFrame, quantities: Sequence[Quantity], colored: str
) -> alt.LayerChart | alt.FacetChart:
    """A line per point over several axes, each from its worst value at the bottom to its best at the top."""
    group = groups(table[COLORED[colored]])
    parts: list[pd.DataFrame] = []
    ends: list[tuple[str, float, str]] = []
    for place, quantity in enumerate(quantities):
        values = table[quantity.key].astype(float)
        texts = [value_text(quantity, value) for value in values]
        title = f"{place + 1}. {quantity.title}"
        height = heights(values, quantity)
        names = table["name"].astype(str)
        part = {"row": table.index, "name": names, "group": group, "axis": title, "height": height, "text": texts}
        parts.append(pd.DataFrame(part))
        best, worst = int(np.argmax(height)), int(np.argmin(height))
        ends += [(title, 1.0, texts[best]), (title, 0.0, texts[worst])]
    data = pd.concat(parts, ignore_index=True)
    color = color_channel(data["group"], colored, lines=True)
    ruler = alt.Axis(labelAngle=0, labelLimit=180, orient="top", domain=False, ticks=False, grid=True)
    across = alt.X("axis:N", title=None, axis=ruler)
    up = alt.Y("height:Q", axis=None, scale=alt.Scale(domain=[-0.08, 1.08]))
    tooltip = [
        alt.Tooltip("name:N", title="variant"), alt.Tooltip("axis:N", title="quantity"),
        alt.Tooltip("text:N", title="value"),
    ]  # fmt: skip
    base = alt.Chart(data)
    line = base.mark_line(opacity=0.6, strokeWidth=1.4, tooltip=None)
    dot = base.mark_point(filled=True, size=36, opacity=0.9)
    labels = alt.Chart(pd.DataFrame(ends, columns=["axis", "height", "text"]))
    marks = [
        labels.transform_filter(alt.datum.height == at)
        .mark_text(dy=dy, color="gray", fontSize=11, tooltip=None)
        .encode(across, up, text="text:N")
        for at, dy in ((1.0, -12), (0.0, 12))
    ]
    dash = dash_channel(data["group"], colored)
    lines = line.encode(across, up, color=color, strokeDash=dash, detail="row:N")
    dots = dot.encode(across, up, color=color, tooltip=tooltip)
    return alt.layer(lines, dots, *marks).properties(height=with_legend(420, group.nunique()))


def parallel_conditions(quantities: Sequence[Quantity]) -> str:
    """The conditions of each axis, and how to read the chart."""
    numbered = [(f"{place + 1}. ", quantity.conditions) for place, quantity in enumerate(quantities)]
    lines = [number + conditions for number, conditions in numbered if conditions]
    return "\n".join(["A line for each network; better values are at the top.", *lines])


def heights(values: "pd.Series[float]", quantity: Quantity) -> NDArray[np.float64]:
    """Places on an axis from 0 (the worst value) to 1 (the best), (points,); 0.5 if all values are equal."""
    scaled = np.log(values.to_numpy()) if is_logarithmic(values) else values.to_numpy()
    span = scaled.max() - scaled.min()
    shares = (scaled - scaled.min()) / span if span else np.full(len(scaled), 0.5)
    return np.asarray(shares if quantity.better == "higher" else 1 - shares)
