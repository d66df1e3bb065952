"""Attention on the item under a token, block by block, as a chart."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hrvit_lab.charts import MUTED, SERIES
from hrvit_lab.plots.insight_numbers import stage_ticks
from hrvit_lab.plots.style import STYLE, WIDTH, add_frame


class ItemShares(NamedTuple):
    """Mean shares of one block's attention that are on the item under the token, 0 to 1; NaN if no token was on one.

    Attributes:
        trained, random: with trained and with random weights.
        chance: with equal attention to the whole window.
    """

    stage: int
    branch: int
    trained: float
    random: float
    chance: float


@matplotlib.rc_context(STYLE)
def on_item(blocks: Sequence[ItemShares], subject: str, note: str = "") -> Figure:
    """The shares of each block, with a panel for each branch."""
    branches = sorted({one.branch for one in blocks})
    fig = Figure(figsize=(WIDTH, 0.6 + 1.2 * len(branches)), layout="constrained")
    axes = fig.subplots(len(branches), 1, sharey=True, squeeze=False)[:, 0]
    for ax, branch in zip(axes, branches, strict=True):
        own = [one for one in blocks if one.branch == branch]
        places = range(len(own))
        for place, one in zip(places, own, strict=True):
            ax.plot([place, place], [one.chance, one.trained], color=SERIES[0], lw=1.2, alpha=0.5)
        ax.plot(places, [one.chance for one in own], "_", ms=14, mew=1.6, color=MUTED, label="equal attention")
        ax.plot(places, [one.random for one in own], "s", ms=5, mfc="none", color=SERIES[1], label="random weights")
        ax.plot(places, [one.trained for one in own], "o", ms=6, color=SERIES[0], label="trained weights")
        ax.set_ylabel(f"branch {branch}")
        ax.set_xlim(-0.5, len(own) - 0.5)
        stage_ticks([ax], [one.stage for one in own])
    shares = [share for one in blocks for share in (one.trained, one.random, one.chance) if math.isfinite(share)]
    axes[0].set_ylim(0, 1.1 * max(shares, default=0) or 1)
    axes[0].yaxis.set_major_locator(MaxNLocator(4))
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[-1].set_xlabel("stage; blocks in order")
    add_frame(
        fig, f"Attention on the item under the token – {subject}",
        "Share of a token's attention that is on the item it lies on, mean over heads, tokens on items, and scenes.",
        axes[0], note,
    )  # fmt: skip
    return fig
