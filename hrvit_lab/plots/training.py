"""Training curves."""

import math
import textwrap

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from hrvit_lab.charts import GRID, SERIES, counted
from hrvit_lab.metrics import axis_label
from hrvit_lab.plots.style import MAX_PANELS, STYLE, WIDTH, add_frame, empty_figure, joined, new_figure, si
from hrvit_lab.plots.text import shorten


@matplotlib.rc_context(STYLE)
def training_curves(curves: pd.DataFrame, metric: str = "top1", dataset: str | None = None) -> Figure:
    """Training curves with one panel per variant: faint lines for seeds, a bold mean, other variants in grey.

    Args:
        curves: columns `variant, seed, epoch, val_<metric>`, and `train_<metric>` if known; at most twelve variants get
            a panel.
        metric: "top1", "miou" or "loss".
        dataset: the data set of the training.
    """
    val, train = f"val_{metric}", f"train_{metric}"
    title = "Validation loss, nats" if metric == "loss" else f"Validation {axis_label(metric, dataset)}"
    if val not in curves:
        curves = curves.assign(**{val: math.nan})
    curves = curves.dropna(subset=[val])
    trained = train in curves and curves[train].notna().any()
    variants = list(dict.fromkeys(curves["variant"]))
    shown = variants[:MAX_PANELS]
    if not shown:
        fig, ax = new_figure()
        add_frame(fig, title)
        return empty_figure(fig, ax)
    means = curves.groupby(["variant", "epoch"], sort=False)[[val, *([train] if trained else [])]].mean()
    point = "o" if curves["epoch"].nunique() == 1 else None  # a line needs two epochs
    columns = min(4, len(shown))
    panel_rows = -(-len(shown) // columns)
    fig = Figure(figsize=(WIDTH, 0.3 + 1.65 * panel_rows), layout="constrained")
    others = joined((means.loc[other].index, means.loc[other, val]) for other in variants[:60])
    axes = fig.subplots(panel_rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, variant in zip(axes.flat, shown, strict=False):
        ax.plot(*others, color=GRID, lw=0.9, marker=point, ms=3, zorder=1)
        for _, seed in curves[curves["variant"] == variant].groupby("seed"):
            ax.plot(seed["epoch"], seed[val], color=SERIES[0], lw=0.8, marker=point, ms=3, alpha=0.35)
        mean = means.loc[variant]
        if trained:
            ax.plot(mean.index, mean[train], color=SERIES[1], lw=1.1, ls=(0, (3, 2)), marker=point, ms=4)
        ax.plot(mean.index, mean[val], color=SERIES[0], lw=2, marker=point, ms=5)
        ax.set_title("\n".join(textwrap.wrap(shorten(variant, 44), 96 // columns, max_lines=2)), fontsize=8, pad=3)
        ax.xaxis.set_major_locator(FixedLocator(list(mean.index)) if point else MaxNLocator(4, integer=True))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    for column in range(columns):
        lowest = axes[(len(shown) - 1 - column) // columns, column]
        lowest.set_xlabel("epoch", fontsize=8.5)
        lowest.tick_params(labelbottom=True)
    seeds = curves.groupby("variant")["seed"].nunique()
    dashed = "dashed: mean on training images; " if trained else ""
    caption = f"Bold: mean over {counted(seeds, 'seed')}; faint: each seed; {dashed}grey: the other variants."
    note = f"The first {len(shown)} of {len(variants)} variants." if len(variants) > len(shown) else ""
    add_frame(fig, title, caption, note=note)
    return fig
