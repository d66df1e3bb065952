"""Paired differences to a reference, with their intervals."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hrvit_lab.charts import INK, SERIES, counted
from hrvit_lab.metrics import METRICS, metric_label
from hrvit_lab.plots.style import MAX_BARS, STYLE, add_frame, empty_figure, new_figure
from hrvit_lab.plots.text import shorten


@matplotlib.rc_context(STYLE)
def deltas(table: pd.DataFrame, y: str, reference: str, dataset: str | None = None) -> Figure:
    """Differences to a reference variant, paired by seed: a dot, a bar of one standard error and the 95 % interval.

    Args:
        table: the study's `table.csv`, with `<y>_delta`, `<y>_delta_se`, `<y>_delta_n` and optionally the interval,
            `<y>_delta_low` and `<y>_delta_high`; at most 26 rows are drawn.
        y: key of `METRICS`.
        reference: name of the reference variant, the line at zero.
        dataset: the data set that accuracy was measured on.
    """
    known = table[table[f"{y}_delta"].notna()].reset_index(drop=True)
    shown = known.iloc[:MAX_BARS]
    fig, ax = new_figure(0.6 + 0.3 * max(len(shown), 2))
    metric = METRICS[y]
    unit = "points" if metric.unit == "%" else metric.unit
    title = f"change of {metric_label(y, dataset)} against {reference}"
    note = f"The first {len(shown)} of {len(known)}." if len(known) > len(shown) else ""
    if shown.empty:
        add_frame(fig, title)
        return empty_figure(fig, ax)
    ax.axvline(0, color=INK, lw=1, alpha=0.55, zorder=1)
    mean, error = (shown[f"{y}_delta{end}"].to_numpy(dtype=float) for end in ("", "_se"))
    low, high = (shown.get(f"{y}_delta_{end}", shown[f"{y}_delta"]).to_numpy(dtype=float) for end in ("low", "high"))
    for ends, width, alpha in (
        (np.stack([mean - low, high - mean]), 1.0, 0.6),
        (np.stack([error, error]), 2.6, 1.0),
    ):
        ax.errorbar(
            mean,
            shown.index,
            xerr=np.nan_to_num(ends).clip(min=0),
            fmt="o",
            ms=6.5,
            color=SERIES[0],
            ecolor=(SERIES[0], alpha),
            elinewidth=width,
        )
    ax.set_yticks(shown.index.to_numpy(), [shorten(name, 34) for name in shown["variant"]], color=INK)
    ax.invert_yaxis()
    ax.margins(0.08, 0.12)
    ax.grid(visible=False)
    ax.grid(visible=True, axis="x")
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(f"Δ {metric_label(y, dataset)}, {unit}")
    seeds = counted(shown[f"{y}_delta_n"].astype(int), "seed")
    caption = f"Mean difference over {seeds}, paired by seed. Thick: ± standard error; thin: 95 % interval."
    add_frame(fig, title, caption, note=note)
    return fig
