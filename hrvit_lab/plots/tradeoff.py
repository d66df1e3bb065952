"""Two metrics against each other, with the Pareto front."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hrvit_lab.metrics import METRICS, axis_label, metric_label
from hrvit_lab.plots.names import place_names
from hrvit_lab.plots.style import (
    INK,
    MARKERS,
    MAX_LABELLED,
    MAX_VECTOR,
    PAPER,
    SERIES,
    STYLE,
    add_frame,
    bars,
    empty_figure,
    groups_of,
    is_disturbed,
    missing_note,
    new_figure,
    set_metric_axis,
    spread,
    spread_caption,
)
from hrvit_lab.plots.text import shorten


def pareto_front(table: pd.DataFrame, x: str, y: str) -> NDArray[np.bool_]:
    """Rows that are not dominated in two metrics, (rows,).

    A row is dominated if another is better in one metric and at least equal in the other. Rows without both values, and
    rows with an unreliable one, are never on the front.
    """
    signs = [1 if METRICS[key].better == "higher" else -1 for key in (x, y)]
    return undominated(table[[x, y]].to_numpy(dtype=float) * signs, ~is_disturbed(table, x, y))


def undominated(values: NDArray[np.float64], reliable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Points that no reliable point dominates, (points,).

    Args:
        values: two values of each point, of which higher ones are better, (points, 2); NaN if missing.
        reliable: (points,); unreliable points are never on the front.
    """
    complete = np.flatnonzero(np.isfinite(values).all(-1) & reliable)
    front = np.zeros(len(values), dtype=bool)
    if len(complete):
        order = complete[np.lexsort((-values[complete, 1], -values[complete, 0]))]  # best x first, there best y first
        best = np.maximum.accumulate(values[order, 1])
        leads = np.concatenate(
            [[True], values[order, 1][1:] > best[:-1]]
        )  # better in y than all rows that are better in x
        leader = order[np.flatnonzero(leads)[np.cumsum(leads) - 1]]
        front[order] = (values[order] == values[leader]).all(-1)  # equal points are both on the front or both not
    return front


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
