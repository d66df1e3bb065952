"""Curves of one training: loss, score and learning rate by epoch."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hrvit_lab.charts import MUTED, SERIES
from hrvit_lab.metrics import SCORES
from hrvit_lab.plots.style import STYLE, WIDTH, add_frame, empty_figure, new_figure, si

HEIGHT = 2.5


@matplotlib.rc_context(STYLE)
def run_curves(rows: pd.DataFrame, score: str, title: str, caption: str = "") -> Figure:
    """Three panels: losses, the score that selects the best weights (its best value is marked), learning rate.

    Args:
        rows: the evaluations of a training, columns ``epoch, train_loss, lr, eval_<score>`` and, if measured,
            ``eval_loss``: the table ``summary.csv`` of a run.
        score: key of `hrvit_lab.metrics.SCORES`.
        title, caption: above the figure.
    """
    if rows.empty:
        fig, ax = new_figure()
        add_frame(fig, title, caption)
        return empty_figure(fig, ax)
    fig = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    losses, scores, rates = fig.subplots(1, 3)
    _lines(losses, rows, ("train_loss", "eval_loss"), "loss, nats")
    _lines(scores, rows, (f"eval_{score}",), f"{SCORES[score]}, %")
    values = rows[f"eval_{score}"].to_numpy(dtype=float)
    if not np.isnan(values).all():
        place = int(np.nanargmax(values))
        epoch, best = float(rows["epoch"].iloc[place]), values[place]
        scores.plot(epoch, best, "o", color=SERIES[1], ms=5)
        scores.set_title(f"best {best:.2f} at epoch {epoch:g}", fontsize=8, color=MUTED)
    _lines(rates, rows, ("lr",), "learning rate")
    if len(losses.lines) > 1:
        losses.set_title("training solid, validation dashed", fontsize=8, color=MUTED)
    add_frame(fig, title, caption)
    return fig


def _lines(ax: Axes, rows: pd.DataFrame, columns: Sequence[str], label: str) -> None:
    point = "o" if len(rows) == 1 else None  # a line needs two points
    for number, column in enumerate(name for name in columns if name in rows):
        style = "-" if number == 0 else (0, (3, 2))
        ax.plot(rows["epoch"], rows[column].astype(float), color=SERIES[number], ls=style, lw=1.6, marker=point, ms=5)
    ax.set_xlabel("epoch")
    ax.set_ylabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
