"""Figures of images: grids of panels, maps drawn over a photograph, a marked pixel, a colour scale."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from hrvit_lab.charts import INK, MUTED, PAPER
from hrvit_lab.plots.style import LEFT, STYLE, WIDTH, add_frame
from hrvit_lab.plots.text import drawable

MARK = "#00c2ff"
"""Colour of the marked pixel; no colour scale contains it."""
HEAT = LinearSegmentedColormap.from_list("heat", ["#3b0f70", "#b73779", "#fc8961", "#fcfdbf"])
"""Dark violet to pale yellow, ordered by lightness: readable with colour blindness and in grey prints."""
MAX_SIDE = 320
"""Pixels of a panel's longer side; larger images are drawn smaller."""
Pixel = tuple[int, int]
Box = tuple[float, float, float, float]


class Panel(NamedTuple):
    """One picture of a figure.

    Attributes:
        title: above the picture, in one or two lines.
        rgb: float 0 to 1, (H, W, 3).
        marks: pixels (row, column) that get a cross.
        boxes: rectangles (top, left, bottom, right) in pixels, drawn as outlines.
    """

    title: str
    rgb: NDArray[Any]
    marks: tuple[Pixel, ...] = ()
    boxes: tuple[Box, ...] = ()


def over(image: NDArray[Any], values: NDArray[Any], largest: float | None = None) -> NDArray[Any]:
    """Values in colour over a pale grey image: float (H, W, 3).

    Args:
        image: uint8 (H, W, 3).
        values: at least 0, (H, W); zero shows the grey image alone.
        largest: the value with the full colour; None: the largest one.
    """
    most = float(values.max()) if largest is None else largest
    share = (values / most if most > 0 else np.zeros_like(values)).clip(0, 1)
    alpha = np.where(share > 0, 0.2 + 0.8 * np.sqrt(share), 0)[..., None]
    return alpha * HEAT(share)[..., :3] + (1 - alpha) * pale(image)


def pale(image: NDArray[Any]) -> NDArray[Any]:
    """A pale grey version of an image, float (H, W, 3)."""
    grey = (image.astype(float) @ np.array([0.299, 0.587, 0.114])) / 255
    return np.repeat((0.35 + 0.6 * grey)[..., None], 3, axis=-1)


@matplotlib.rc_context(STYLE)
def panels(
    rows: Sequence[Sequence[Panel | None]],
    title: str,
    caption: str,
    *,
    note: str = "",
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
    scale: tuple[str, str, str] | None = None,
    legend: Mapping[str, NDArray[Any]] | None = None,
) -> Figure:
    """A grid of pictures under a title.

    Args:
        rows: panels by row; None leaves a place empty. Rows may have different lengths.
        caption: meaning of the colours.
        note: below the figure.
        row_names, column_names: at the left and at the top of the grid.
        legend: colours by name.
        scale: texts at the left end, right end and below a bar with the colours of `over`; None: no bar.
    """
    columns = max(map(len, rows))
    first = next(panel for row in rows for panel in row if panel is not None)
    tall, wide = first.rgb.shape[:2]
    lines = max(panel.title.count("\n") + 1 if panel.title else 0 for row in rows for panel in row if panel)
    across = (WIDTH - 0.35) / max(columns, 3)
    height = len(rows) * (across * 0.94 * tall / wide + 0.16 * lines + 0.08) + (0.25 if column_names else 0.05)
    fig = Figure(figsize=(WIDTH, height + (0.45 if scale else 0)), layout="constrained")
    grid = fig.add_gridspec(len(rows), max(columns, 3))
    axes: dict[tuple[int, int], Axes] = {}
    for r, row in enumerate(rows):
        for c in range(max(columns, 3)):
            panel = row[c] if c < len(row) else None
            if panel is None and r > 0 and c > 0:
                continue  # an empty place has axes only where it can have the name of a row or column
            ax = axes[r, c] = fig.add_subplot(grid[r, c])
            ax.set_axis_off()
            ax.set(xticks=(), yticks=())  # the layout asks for the boxes of ticks, even of those that are not drawn
            if panel is not None:
                _draw(ax, panel, across)
            if c == 0 and r < len(row_names):
                ax.text(
                    -0.04, 0.5, drawable(row_names[r]), transform=ax.transAxes, rotation=90, ha="right", va="center",
                    fontsize=8.5, color=INK,
                )  # fmt: skip
    for c, name in enumerate(column_names):
        _above(axes[0, c], drawable(name), lines)
    if scale:
        _bar(fig, list(axes.values()), scale)
    for name, color in (legend or {}).items():
        axes[0, 0].plot([], [], "s", color=tuple(color), ms=7, label=drawable(name))
    add_frame(fig, title, caption, axes[0, 0] if legend else None, note)
    engine = fig.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    _, below, _, body = engine.get()["rect"]
    engine.set(w_pad=0.03, wspace=0.0, rect=(LEFT / 2, below, 1 - LEFT, body))
    return fig


def _draw(ax: Axes, panel: Panel, inches: float) -> None:
    tall, wide = panel.rgb.shape[:2]
    step = max(1, max(tall, wide) // MAX_SIDE)
    ax.imshow(panel.rgb[::step, ::step].clip(0, 1), extent=(0, wide, tall, 0), interpolation="nearest", rasterized=True)
    ax.set_xlim(0, wide)
    ax.set_ylim(tall, 0)
    if panel.title:
        ax.set_title(drawable(panel.title), fontsize=7.5, color=MUTED, pad=3, loc="left", linespacing=1.15)
    for top, left, bottom, right in panel.boxes:
        for color, width in ((PAPER, 2.2), (MARK, 1.1)):
            ax.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, ec=color, lw=width, clip_on=False)
            )
    size = max(4.0, 4.5 * inches)
    for y, x in panel.marks:
        for color, width in ((PAPER, 2.6), (MARK, 1.3)):
            ax.plot(x + 0.5, y + 0.5, "+", color=color, ms=size + width, mew=width, clip_on=False)


def _above(ax: Axes, name: str, lines: int) -> None:
    ax.annotate(
        name, (0.5, 1), (0, 11 * lines + 5), xycoords="axes fraction", textcoords="offset points", ha="center",
        va="bottom", fontsize=8.5, color=INK, annotation_clip=False,
    )  # fmt: skip


def _bar(fig: Figure, axes: Sequence[Axes], scale: tuple[str, str, str]) -> None:
    mappable = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), HEAT)
    bar = fig.colorbar(mappable, ax=list(axes), location="bottom", shrink=0.45, aspect=40, pad=0.02)
    bar.set_ticks([0, 1], labels=[drawable(text) for text in scale[:2]])
    bar.ax.tick_params(labelsize=7.5, length=0)
    bar.set_label(drawable(scale[2]), fontsize=8, color=MUTED)
    bar.outline.set_visible(False)
