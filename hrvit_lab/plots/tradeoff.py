"""Two metrics against each other, with the Pareto front."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hrvit_lab.charts import INK, PAPER, SERIES, is_disturbed, pareto_front, spread
from hrvit_lab.metrics import METRICS, axis_label, metric_label
from hrvit_lab.plots.names import place_names
from hrvit_lab.plots.style import (
    MARKERS,
    MAX_LABELLED,
    MAX_VECTOR,
    STYLE,
    add_frame,
    bars,
    empty_figure,
    groups_of,
    missing_note,
    new_figure,
    set_metric_axis,
    spread_caption,
)
from hrvit_lab.plots.text import shorten


@matplotlib.rc_context(STYLE)
def tradeoff(
    table: pd.DataFrame, x: str = "macs", y: str = "top1", label: str = "variant", dataset: str | None = None
) -> Figure:
    """Scatter plot of two metrics, one point per variant, with spreads and the Pareto front of the means.

    Args:
        table: one row per variant, as the study's `table.csv`; rows without both values are omitted and counted.
        x, y: keys of `METRICS`; x is logarithmic if it spans more than a factor of ten.
        label: the column with the names of the points; with many points, only those on the front are named.
        dataset: the data set that accuracy was measured on.
    """
    rows = table[np.isfinite(table[[x, y]].to_numpy(dtype=float)).all(axis=1)].reset_index(drop=True)
    fig, ax = new_figure()
    title = f"{metric_label(y, dataset)} against {METRICS[x].label}"
    note = missing_note(len(table) - len(rows), len(table), (x, y), dataset)
    if rows.empty:
        add_frame(fig, title, note=note)
        return empty_figure(fig, ax)

    ax.set(xlabel=axis_label(x, dataset), ylabel=axis_label(y, dataset))
    set_metric_axis(ax, "x", rows[x])
    set_metric_axis(ax, "y", rows[y])
    front = pareto_front(rows, x, y)
    x_error, y_error = spread(rows, x), spread(rows, y)
    size = 6.5 if len(rows) <= 60 else 4.5  # points
    for index, (name, group) in enumerate(groups_of(rows)):
        color, marker, where = (
            SERIES[index % len(SERIES)],
            MARKERS[index % len(MARKERS)],
            group.index.to_numpy(),
        )
        across, up = group[x].to_numpy(dtype=float), group[y].to_numpy(dtype=float)
        (left, right), (down, high) = x_error[:, where], y_error[:, where]
        for ends in (((across - left, up), (across + right, up)), ((across, up - down), (across, up + high))):
            ax.plot(*bars(*ends), color=color, alpha=0.45, lw=1.2, zorder=2, rasterized=len(rows) > MAX_VECTOR)
        for on_front, fill in ((False, PAPER), (True, color)):
            points = group[front[where] == on_front]
            ax.plot(
                points[x],
                points[y],
                marker,
                ms=size,
                mfc=fill,
                mec=color,
                mew=1.4,
                zorder=4 if on_front else 3,
                rasterized=len(rows) > MAX_VECTOR,
            )
        if name is not None:
            ax.plot([], [], marker, ms=size, color=color, label=shorten(name))
    best = rows[front].sort_values(x)
    step = ax.step(best[x], best[y], where="post" if METRICS[x].better == "lower" else "pre", color=INK, lw=1, zorder=1)
    step[0].set_alpha(0.55)
    ax.margins(0.09, 0.12)
    caption = _tradeoff_caption(rows, x, y)
    if (crossed := is_disturbed(rows, x, y)).any():
        ax.plot(rows[x][crossed], rows[y][crossed], "x", ms=size + 2, color=INK, mew=1, zorder=5)
        caption += " Crosses: unreliable measurements, excluded from the front."
    add_frame(fig, title, caption, ax, note)

    named = len(rows) if len(rows) <= MAX_LABELLED else min(int(front.sum()), MAX_LABELLED)
    order = np.argsort(~front, kind="stable")[:named]
    first: dict[tuple[str, float, float], int] = {}
    for i in order:  # a network that occurs twice (as is, and matched) is labelled once
        first.setdefault((_point_name(rows.loc[i], label), rows[x][i], rows[y][i]), int(i))
    place_names(ax, rows, x, y, [(i, name) for (name, *_), i in first.items()], best)
    return fig


def _tradeoff_caption(rows: pd.DataFrame, x: str, y: str) -> str:
    return f"{spread_caption(rows, y, x)} Filled points and the line: Pareto front of the central values.".strip()


def _point_name(row: "pd.Series[Any]", label: str) -> str:
    """The variant's name, without the matching, which its colour shows."""
    name = str(row[label])
    return shorten(name.removesuffix(f", {row['matching']}") if "matching" in row else name)
