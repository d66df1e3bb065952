"""Numbers of `hrvit_lab.insight` as charts: contributions, statistics of attention, similarity."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hrvit_lab.charts import MUTED, SERIES, part_colors, part_label
from hrvit_lab.plots.style import MARKERS, STYLE, WIDTH, add_frame, si
from hrvit_lab.plots.text import drawable

AS_PART = {"attention": "attention products", "linear shortcut": "des", "bias": "attention projection"}
"""Parts by contribution: the contribution has the colour that the part has in other figures."""
MAX_TICKS = 24


class BlockShares(NamedTuple):
    """The contributions of the paths of one block.

    Attributes:
        stage, branch: of the block.
        shares: norms divided by that of the residual stream, by path.
    """

    stage: int
    branch: int
    shares: Mapping[str, float]


class BlockNumbers(NamedTuple):
    """Statistics of one block's attention, per head; ``diversity`` is one number."""

    stage: int
    branch: int
    distance_px: NDArray[Any]
    entropy_share: NDArray[Any]
    diversity: float


@matplotlib.rc_context(STYLE)
def contributions(blocks: Sequence[BlockShares], subject: str, note: str = "") -> Figure:
    """The relative norm of each path's contribution to the residual stream, by block, with a panel for each branch."""
    branches = sorted({one.branch for one in blocks})
    paths = list(dict.fromkeys(path for one in blocks for path in one.shares))
    silent = [path for path in paths if not any(one.shares.get(path, 0) > 0 for one in blocks)]
    fig = Figure(figsize=(WIDTH, 0.4 + 1.2 * len(branches)), layout="constrained")
    axes = fig.subplots(len(branches), 1, sharey=True, squeeze=False)[:, 0]
    known = part_colors(AS_PART.get(path, path) for path in paths)
    for ax, branch in zip(axes, branches, strict=True):
        own = [one for one in blocks if one.branch == branch]
        for marker, path in zip(MARKERS, paths, strict=False):
            if path in silent:
                continue
            values = np.array([one.shares.get(path, np.nan) for one in own], dtype=float)
            ax.plot(
                range(len(own)), np.where(values > 0, values, np.nan), "-", marker=marker, ms=4.5, lw=1.1,
                color=known[AS_PART.get(path, path)], label=drawable(part_label(path)),
            )  # fmt: skip
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        ax.set_ylabel(f"branch {branch}")
        ax.set_xlim(-0.5, len(own) - 0.5)
        stage_ticks([ax], [one.stage for one in own])
    low, high = axes[0].get_ylim()
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 50 else (1,)))
    axes[-1].set_xlabel("stage; blocks in order")
    names = ", ".join(part_label(path) for path in silent)
    add_frame(
        fig, f"What each path adds to the residual stream – {subject}",
        "Euclidean norm of what a path adds, divided by the norm of the stream before the block, mean over tokens."
        + (f" Not drawn, because they add exactly nothing: {names}." if silent else ""),
        axes[0], note,
    )  # fmt: skip
    return fig


@matplotlib.rc_context(STYLE)
def attention_numbers(blocks: Sequence[BlockNumbers], subject: str, note: str = "") -> Figure:
    """Distance, entropy and diversity of attention, block by block; a point for each head."""
    branches = sorted({one.branch for one in blocks})
    fig = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    distance, entropy, diversity = fig.subplots(3, 1, sharex=True)
    for number, branch in enumerate(branches):
        places = [place for place, one in enumerate(blocks) if one.branch == branch]
        color, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
        for ax, key in ((distance, "distance_px"), (entropy, "entropy_share")):
            points = [(place, value) for place in places for value in getattr(blocks[place], key)]
            ax.plot(*zip(*points, strict=True), marker, color=color, ms=4.5, alpha=0.8, label=f"branch {branch}")
        diversity.plot(places, [blocks[place].diversity for place in places], marker, color=color, ms=4.5, alpha=0.8)
    distance.set_ylabel("distance, px")
    farthest = max(float(one.distance_px.max()) for one in blocks)
    distance.set_ylim(0, 1.12 * farthest if farthest > 0 else 1)
    distance.yaxis.set_major_locator(MaxNLocator(4))
    distance.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    entropy.set_ylabel("entropy / max.")
    diversity.set_ylabel("head diversity")
    for ax in (entropy, diversity):
        ax.set_ylim(-0.06, 1.06)
        ax.set_yticks([0, 0.5, 1])
    stage_ticks([distance, entropy, diversity], [one.stage for one in blocks])
    diversity.set_xlabel("stage; blocks in order")
    add_frame(
        fig, f"Attention in numbers – {subject}",
        "Distance: between a token and what it attends to, weighted by attention; a point is a head. Entropy: 1 is "
        "equal attention to all tokens of the window. Head diversity: total variation between heads; 1 is disjoint.",
        distance, note,
    )  # fmt: skip
    return fig


@matplotlib.rc_context(STYLE)
def similarity(
    cka: NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    grid: tuple[int, int],
    subject: str,
    note: str = "",
    networks: tuple[str, str] | None = None,
) -> Figure:
    """A matrix of similarities, with its values if there is room.

    Args:
        networks: the names of those with the maps of the rows and of the columns; None: ``subject`` has both.
    """
    size = 0.9 + 0.235 * max(len(rows), 8)
    fig = Figure(figsize=(WIDTH, size + 0.7), layout="constrained")
    ax = fig.subplots()
    aspect: Literal["equal", "auto"] = "equal" if len(rows) == len(columns) else "auto"
    shown = ax.imshow(cka, vmin=0, vmax=1, cmap="cividis", aspect=aspect, rasterized=True)
    ax.grid(visible=False)
    ax.set_xticks(range(len(columns)), [drawable(name) for name in columns], rotation=60, ha="right", fontsize=7.5)
    ax.set_yticks(range(len(rows)), [drawable(name) for name in rows], fontsize=7.5)
    ax.set_xticks(range(len(columns)), [drawable(name) for name in columns], rotation_mode="anchor")
    if max(len(rows), len(columns)) <= MAX_TICKS:
        for (r, c), value in np.ndenumerate(cka):
            ax.text(
                c, r, "–" if np.isnan(value) else f"{100 * value:.0f}", ha="center", va="center", fontsize=5.5,
                color="black" if value > 0.55 else "white",
            )  # fmt: skip
    bar = fig.colorbar(shown, ax=ax, shrink=0.7, aspect=24)
    bar.set_label("CKA; in the cells in percent", fontsize=8, color=MUTED)
    bar.outline.set_visible(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if networks is not None:
        ax.set_ylabel(drawable(networks[0]), fontsize=8.5)
        ax.set_xlabel(drawable(networks[1]), fontsize=8.5)
        subject = f"{subject}, and {networks[1]}"
    add_frame(
        fig, f"Similarity of representations – {subject}",
        f"Linear CKA, unbiased, between maps at {grid[0] * grid[1]} positions ({grid[0]} × {grid[1]}) of the image: 1 "
        "is equal up to rotation and scale.",
        note=note,
    )  # fmt: skip
    return fig


def stage_ticks(axes: Sequence[Axes], stages: Sequence[int]) -> None:
    """A tick at the first block of every stage, and lines between stages."""
    starts = [place for place, stage in enumerate(stages) if place == 0 or stages[place - 1] != stage]
    for ax in axes:
        ax.set_xticks(starts, [str(stages[place]) for place in starts], fontsize=8)
        for place in starts[1:]:
            ax.axvline(place - 0.5, color=MUTED, lw=0.6, alpha=0.4, zorder=0)
