"""Costs by part of the network."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hrvit_lab.charts import INK, MUTED, PAPER, part_colors, part_label
from hrvit_lab.metrics import METRICS, axis_label, format_value
from hrvit_lab.plots.style import MAX_BARS, STYLE, add_frame, empty_figure, new_figure, si
from hrvit_lab.plots.text import shorten


@matplotlib.rc_context(STYLE)
def cost_breakdown(costs: pd.DataFrame, metric: str = "macs", caption: str = "") -> Figure:
    """Stacked horizontal bars of a cost by part.

    Args:
        costs: a row for each bar (variants, stages, branches), a column for each part; values in the metric's unit.
            At most the first 26 rows are drawn.
        metric: key of `METRICS`.
        caption: text below the title.
    """
    shown = costs.loc[:, (costs.fillna(0) != 0).any()].iloc[:MAX_BARS].fillna(0)
    fig, ax = new_figure(0.5 + 0.28 * max(len(shown), 2))
    title = f"{axis_label(metric)} by part"
    note = f"The first {len(shown)} of {len(costs)}." if len(costs) > len(shown) else ""
    if shown.empty:
        add_frame(fig, title)
        return empty_figure(fig, ax)
    left = np.zeros(len(shown))
    position = np.arange(len(shown))
    for part, color in part_colors(map(str, shown.columns)).items():
        width = shown[part].to_numpy(dtype=float)
        ax.barh(position, width, 0.66, left=left, color=color, label=part_label(part), edgecolor=PAPER, lw=0.8)
        left += width
    for where, total in zip(position, left, strict=True):
        ax.annotate(
            format_value(METRICS[metric], float(total)),
            (total, where),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=MUTED,
        )
    ax.set_yticks(position, [shorten(name, 34) for name in shown.index], color=INK)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.grid(visible=True, axis="x")
    ax.spines["left"].set_visible(False)
    ax.set_xlim(0, max(left.max(), 1e-12) * 1.1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    add_frame(fig, title, caption, ax, note)
    return fig
