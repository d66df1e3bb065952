"""A metric along one axis of a study."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from numpy.typing import NDArray

from hrvit_lab.charts import INK, MUTED, SERIES, is_disturbed, spread
from hrvit_lab.metrics import axis_label, metric_label
from hrvit_lab.plots.style import (
    MARKERS,
    MAX_LINES,
    STYLE,
    add_frame,
    empty_figure,
    joined,
    missing_note,
    new_figure,
    si,
    spread_caption,
)
from hrvit_lab.plots.text import shorten


@matplotlib.rc_context(STYLE)
def axis_curve(
    table: pd.DataFrame, axis: str, y: str, others: Sequence[str] = (), dataset: str | None = None
) -> Figure:
    """A metric along one axis of a study: lines of means with their spread as a band.

    Args:
        table: as for `tradeoff`.
        axis: the column on the x axis; numbers are placed on a numeric axis, other values in order of appearance.
        y: key of `METRICS`.
        others: the study's other axes; a line connects variants that differ in `axis` only. More than six lines are
            drawn thin, with their mean in bold.
        dataset: the data set that accuracy was measured on.
    """
    rows = table[np.isfinite(table[y].to_numpy(dtype=float)) & table[axis].notna().to_numpy()].reset_index(drop=True)
    fig, ax = new_figure()
    title = f"{metric_label(y, dataset)} along {axis.replace('_', ' ')}"
    note = missing_note(int(table[axis].notna().sum()) - len(rows), int(table[axis].notna().sum()), (y,), dataset)
    if rows.empty:
        add_frame(fig, title, note=note)
        return empty_figure(fig, ax)

    ax.set(xlabel=axis.replace("_", " "), ylabel=axis_label(y, dataset))
    position = _axis_positions(ax, rows[axis])
    error = spread(rows, y)
    by = [column for column in dict.fromkeys((*others, "matching")) if column in rows and column != axis]
    lines = (
        [(name, part.index.to_numpy()) for name, part in rows.groupby(by, dropna=False, sort=False)]
        if by
        else [((), rows.index.to_numpy())]
    )
    longest = max(len(where) for _, where in lines)
    lines = [
        (name, where[np.argsort(position[where], kind="stable")])
        for name, where in lines
        if len(where) > 1 or longest == 1
    ]
    varying = [index for index, _ in enumerate(by) if len({str(name[index]) for name, _ in lines}) > 1]
    crowded = len(lines) > MAX_LINES
    values = rows[y].to_numpy(dtype=float)
    for index, (name, where) in enumerate([] if crowded else lines):
        text = ", ".join(
            shorten(name[i]) if by[i] == "matching" else f"{by[i].replace('_', ' ')} {shorten(name[i])}"
            for i in varying
        )
        xs, ys = position[where], values[where]
        ax.fill_between(xs, ys - error[0, where], ys + error[1, where], color=SERIES[index], alpha=0.15, lw=0)
        ax.plot(xs, ys, marker=MARKERS[index], ms=5.5, color=SERIES[index], lw=1.8, label=text or "_")
    if crowded:
        ax.plot(*joined((position[where], values[where]) for _, where in lines), color=MUTED, lw=0.8, alpha=0.4)
        mean = pd.Series(values).groupby(position).mean()
        ax.plot(mean.index, mean, marker="o", ms=5.5, color=SERIES[0], lw=2.2)
    caption = (
        f"Thin: {len(lines)} settings of the other axes; bold: their mean." if crowded else spread_caption(rows, y)
    )
    if (crossed := is_disturbed(rows, y)).any():
        ax.plot(position[crossed], values[crossed], "x", ms=8, color=INK, mew=1, zorder=5, label="_")
        caption += " Crosses: unreliable measurements."
    add_frame(fig, title, caption, None if crowded else ax, note)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    ax.margins(0.05 if pd.api.types.is_numeric_dtype(rows[axis]) else 0.15, 0.12)
    return fig


def _axis_positions(ax: Axes, column: "pd.Series[Any]") -> NDArray[np.float64]:
    """The x coordinate of each row, (rows,); sets a tick at every value."""
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().all():
        values = np.unique(numbers.to_numpy(dtype=float))
        if len(values) <= 12:
            ax.xaxis.set_major_locator(FixedLocator(values.tolist()))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
        return numbers.to_numpy(dtype=float)
    codes, names = pd.factorize(column.astype(str))
    labels = [shorten(name, 20) for name in names]
    tilted = sum(map(len, labels)) > 70
    ax.set_xticks(range(len(names)), labels, rotation=30 if tilted else 0, ha="right" if tilted else "center")
    return codes.astype(float)
