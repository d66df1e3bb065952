"""What int8 costs each part of a network, as a chart."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from hrvit_lab.charts import INK, SERIES, part_colors, part_label
from hrvit_lab.plots.style import MARKERS, MAX_BARS, STYLE, WIDTH, add_frame
from hrvit_lab.plots.text import drawable, shorten

PATCH_EMBED = "patch_embed"
"""The kind of a part that other figures call a patch embedding."""


class PieceError(NamedTuple):
    """The relative error if only this part is int8; see `hrvit_lab.export.sensitivity.Piece`."""

    stage: int | str | None
    branch: int | None
    part: str
    relative_error: float


@matplotlib.rc_context(STYLE)
def sensitivity_figure(points: Sequence[PieceError], everything: float, subject: str, note: str = "") -> Figure:
    """The relative error of each part alone: by stage, with a panel for each branch; by module for other networks.

    Args:
        everything: relative error with all parts in int8, a dashed line.
    """
    panels = _panels(points)
    by_module = all(point.stage is None for point in points)
    height = 0.5 + 0.24 * min(len(points), MAX_BARS) if by_module else 0.5 + 1.3 * len(panels)
    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    title = f"What int8 costs each part – {subject}"
    caption = (
        "Change of the outputs if only this part is int8: Euclidean norm, divided by that of the float32 outputs. "
        "Dashed: everything in int8."
    )
    if by_module:
        ax = fig.subplots()
        shown = sorted(points, key=lambda point: -point.relative_error)[:MAX_BARS]
        ax.plot([point.relative_error for point in shown], range(len(shown)), "o", ms=6, color=SERIES[0])
        ax.set_yticks(range(len(shown)), [shorten(point.part, 34) for point in shown], color=INK)
        ax.invert_yaxis()
        ax.axvline(everything, color=INK, lw=1, ls=(0, (4, 3)))
        ax.set_xscale("log")
        ax.grid(visible=False)
        ax.grid(visible=True, axis="x")
        _log_ticks(ax, "x")
        more = f" The {len(shown)} largest of {len(points)}." if len(shown) < len(points) else ""
        add_frame(fig, title, caption + more, note=note)
        return fig
    axes = fig.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    stages: list[int | str] = ["stem", *sorted({p.stage for p in points if isinstance(p.stage, int)}), "head"]
    stages = [stage for stage in stages if any(point.stage == stage for point in points)]
    parts = list(dict.fromkeys(point.part for point in points))
    names = {part: "patch embedding" if part == PATCH_EMBED else part for part in parts}
    colors = part_colors(names.values())
    for marker, part in zip(MARKERS, parts, strict=False):
        color, label = colors[names[part]], drawable(part_label(names[part]))
        axes[0].plot([], [], marker, color=color, label=label)
        for ax, own in zip(axes, panels.values(), strict=True):
            values = [point for point in own if point.part == part]
            places = [stages.index(point.stage) for point in values if point.stage is not None]
            ax.plot(places, [point.relative_error for point in values], marker, ms=6, color=color)
    for ax, name in zip(axes, panels, strict=True):
        ax.axhline(everything, color=INK, lw=1, ls=(0, (4, 3)))
        ax.set_yscale("log")
        ax.set_ylabel(name)
        ax.margins(y=0.12)
        ax.set_xlim(-0.5, len(stages) - 0.5)
    _log_ticks(axes[0], "y")
    axes[-1].set_xticks(range(len(stages)), [str(stage) for stage in stages])
    axes[-1].set_xlabel("stage")
    add_frame(fig, title, caption, axes[0], note)
    return fig


def _panels(points: Sequence[PieceError]) -> dict[str, list[PieceError]]:
    """Points by panel: the parts of all branches first, then the branches."""
    found: dict[str, list[PieceError]] = {}
    for point in sorted(points, key=lambda point: -1 if point.branch is None else point.branch):
        name = "all branches" if point.branch is None else f"branch {point.branch}"
        found.setdefault(name, []).append(point)
    return found


def _log_ticks(ax: Axes, which: str) -> None:
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 50 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
