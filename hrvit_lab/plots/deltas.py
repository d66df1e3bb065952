"""Paired differences to a reference, with their intervals."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hrvit_lab.metrics import METRICS, metric_label
from hrvit_lab.plots.style import INK, MAX_BARS, SERIES, STYLE, add_frame, counted, empty_figure, new_figure, shorten

STUDENT_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Half width of a mean's 95 % interval in standard errors, for 1 to 9 degrees of freedom; beyond, a little too wide."""


def half_width_95(table: pd.DataFrame, key: str) -> NDArray[np.float64]:
    """Half the 95 % interval of each mean paired difference, (rows,); NaN where one seed is all there is.

    Args:
        table: with `<key>_delta_se` and `<key>_delta_n`.
    """
    freedom = np.nan_to_num(table[f"{key}_delta_n"].to_numpy(dtype=float)).astype(int) - 1
    factors = np.asarray(STUDENT_T)[freedom.clip(1, len(STUDENT_T)) - 1]
    return factors * table[f"{key}_delta_se"].to_numpy(dtype=float)


@matplotlib.rc_context(STYLE)
def deltas(table: pd.DataFrame, y: str, reference: str, dataset: str | None = None) -> Figure:
    """Differences to a reference variant, paired by seed: a dot, a bar of one standard error and the 95 % interval.

    Args:
        table: the study's `table.csv`, with `<y>_delta`, `<y>_delta_se` and `<y>_delta_n`; at most 26 rows are drawn.
        y: key of `METRICS`.
        reference: what the others are compared with: the line at zero.
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
    for error, width, alpha in (
        (half_width_95(shown, y), 1.0, 0.6),
        (shown[f"{y}_delta_se"].to_numpy(float), 2.6, 1.0),
    ):
        ax.errorbar(
            shown[f"{y}_delta"],
            shown.index,
            xerr=np.nan_to_num(error),
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
    caption = f"Mean over {seeds}, each seed against itself. Thick: ± its standard error; thin: its 95 % interval."
    add_frame(fig, title, caption, note=note)
    return fig
