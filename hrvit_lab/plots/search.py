"""How fast the methods of a search find good networks."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hrvit_lab.charts import MUTED, SERIES
from hrvit_lab.plots.style import STYLE, add_frame, empty_figure, new_figure, si

NAMES = {"nsga2": "NSGA-II", "random": "random search"}
POINTS = 200


@matplotlib.rc_context(STYLE)
def hypervolume_curves(history: pd.DataFrame, title: str, truth: float | None = None, caption: str = "") -> Figure:
    """Hypervolume against evaluated networks: median over the seeds, with the quartiles as a band.

    Args:
        history: columns ``method, seed, evaluations, hypervolume``, a row per run and generation.
        title, caption: above the figure.
        truth: hypervolume of the Pareto set of the whole space, if it was enumerated.
    """
    fig, ax = new_figure()
    if history.empty:
        add_frame(fig, title, caption)
        return empty_figure(fig, ax)
    for number, (method, runs) in enumerate(history.groupby("method", sort=False)):
        grid = np.linspace(runs["evaluations"].min(), runs["evaluations"].max(), POINTS)
        low, middle, high = np.quantile(_volumes(runs, grid), (0.25, 0.5, 0.75), axis=0)
        style = "-" if number == 0 else (0, (5, 2))
        ax.plot(grid, middle, color=SERIES[number], ls=style, lw=1.8, label=NAMES.get(str(method), str(method)))
        ax.fill_between(grid, low, high, color=SERIES[number], alpha=0.18, lw=0)
    if truth is not None:
        ax.axhline(truth, color=MUTED, lw=1, ls=(0, (1, 2)), label="all networks of the space")
    ax.set_xlabel("evaluated networks")
    ax.set_ylabel("hypervolume")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    seeds = history["seed"].nunique()
    note = f"Median of {seeds} seeds; the band is the range between the quartiles." if seeds > 1 else "One seed."
    add_frame(fig, title, caption, legend=ax, note=note)
    return fig


def _volumes(runs: pd.DataFrame, grid: np.ndarray) -> np.ndarray:
    """The hypervolume of every run at these numbers of evaluations, (runs, points): that of the last generation."""
    rows = []
    for _, run in runs.groupby("seed"):
        place = np.searchsorted(run["evaluations"].to_numpy(), grid, side="right") - 1
        rows.append(run["hypervolume"].to_numpy()[np.maximum(place, 0)])
    return np.stack(rows)
