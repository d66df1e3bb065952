"""Figures of images: grids of panels, maps drawn over a photograph, a marked pixel, a colour scale."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from hrvit_lab.charts import INK, MUTED, PAPER
from hrvit_lab.plots.style import LEFT, STYLE, WIDTH, add_frame
from hrvit_lab.plots.text import drawable

MARK = "#00c2ff"
"""Colour of the marked pixel; no colour scale contains it."""
HEAT = LinearSegmentedColormap.from_list("heat", ["#3b0f70", "#b73779", "#fc8961", "#fcfdbf"])
"""Dark violet to pale yellow, ordered by lightness: readable with colour blindness and in grey prints."""
HEAT_TABLE = HEAT(np.arange(256))[:, :3].astype(np.float32)
"""Its 256 colours: to look them up is quicker than to ask matplotlib."""
MAX_SIDE = 320
"""Pixels of a panel's longer side; larger images are drawn smaller."""
GAP, LINE, BAR = 0.1, 0.12, 0.4
"""Inches: between panels, of a title's line, of the bar of colours with its texts."""
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
    grey = pale(image)
    if most <= 0:
        return grey
    share = (values / most).clip(0, 1).astype(np.float32)
    alpha = np.where(share > 0, 0.2 + 0.8 * np.sqrt(share), 0)[..., None]
    colors = HEAT_TABLE[np.minimum(256 * share, 255).astype(np.uint8)]
    return grey + alpha * (colors - grey)


def pale(image: NDArray[Any]) -> NDArray[Any]:
    """A pale grey version of an image, float (H, W, 3)."""
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32) / 255
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
    """A grid of pictures under a title, all on one pair of axes in inches: axes of their own take most of the time.

    Args:
        rows: panels by row; None leaves a place empty. Rows may have different lengths.
        caption: meaning of the colours.
        note: below the figure.
        row_names, column_names: at the left and at the top of the grid.
        legend: colours by name.
        scale: texts at the left end, right end and below a bar with the colours of `over`; None: no bar.
    """
    columns = max(3, *map(len, rows))
    left = LEFT * WIDTH + (0.2 if row_names else 0)
    pitch = (WIDTH - LEFT * WIDTH - left + GAP) / columns
    found = [panel for row in rows for panel in row if panel is not None]
    titles = {id(panel): _wrapped(panel.title, pitch) for panel in found}
    lines = max(len(each) for each in titles.values())
    tall, wide = found[0].rgb.shape[:2]
    above = LINE * lines + 0.06
    step = (pitch - GAP) * tall / wide + above + 0.04
    top = 0.22 if column_names else 0.0
    height = top + len(rows) * step + (BAR if scale else 0)

    fig = Figure(figsize=(WIDTH, height))
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    ax.set_axis_off()
    for r, row in enumerate(rows):
        y = top + r * step + above
        for c, panel in enumerate(row):
            if panel is not None:
                _draw(ax, panel, titles[id(panel)], (left + c * pitch, y), pitch - GAP)
        if r < len(row_names):
            _write(ax, left - 0.07, y + (step - above) / 2, row_names[r], rotation=90, ha="right", va="center")
    for c, name in enumerate(column_names):
        _write(ax, left + c * pitch + (pitch - GAP) / 2, 0, name, ha="center", va="top")
    if scale:
        _bar(ax, height - BAR, scale)
    for name, color in (legend or {}).items():
        ax.plot([], [], "s", color=tuple(color), ms=7, label=drawable(name))
    below = add_frame(fig, title, caption, ax if legend else None, note)
    ax.set_position((0, below / fig.get_figheight(), 1, height / fig.get_figheight()))
    return fig


def _wrapped(title: str, inches: float) -> list[str]:
    """The lines of a panel's title that fit into its width."""
    most = int(inches / 0.06)
    return [part for line in drawable(title).split("\n") for part in textwrap.wrap(line, most) or [""]]


def _draw(ax: Axes, panel: Panel, title: Sequence[str], corner: tuple[float, float], inches: float) -> None:
    """A picture of that width with its upper left corner there, the title above it, and its marks, in its pixels."""
    tall, wide = panel.rgb.shape[:2]
    step = max(1, max(tall, wide) // MAX_SIDE)
    placed = Affine2D().scale(inches / wide).translate(*corner) + ax.transData
    picture = AxesImage(ax, extent=(0, wide, tall, 0), interpolation="nearest", rasterized=True, transform=placed)
    picture.set_data(panel.rgb[::step, ::step].clip(0, 1))
    ax.add_image(picture)
    text = "\n".join(title)
    ax.text(corner[0], corner[1] - 0.04, text, va="bottom", fontsize=7.5, color=MUTED, linespacing=1.15)
    for top, left, bottom, right in panel.boxes:
        for color, width in ((PAPER, 2.2), (MARK, 1.1)):
            outline = Rectangle((left, top), right - left, bottom - top, fill=False, ec=color, lw=width)
            outline.set_transform(placed)
            ax.add_artist(outline)
    size = max(4.0, 4.5 * inches)
    for y, x in panel.marks:
        for color, width in ((PAPER, 2.6), (MARK, 1.3)):
            cross = Line2D([x + 0.5], [y + 0.5], marker="+", color=color, ms=size + width, mew=width)
            cross.set_transform(placed)
            ax.add_artist(cross)


def _write(ax: Axes, x: float, y: float, text: str, **where: Any) -> None:
    ax.text(x, y, drawable(text), fontsize=8.5, color=INK, **where)


def _bar(ax: Axes, y: float, scale: tuple[str, str, str]) -> None:
    """The colours of `over`, with texts."""
    low, high, meaning = map(drawable, scale)
    left, right, thick = 0.28 * WIDTH, 0.72 * WIDTH, 0.09
    colors = AxesImage(ax, extent=(left, right, y + 0.12 + thick, y + 0.12), rasterized=True)
    colors.set_data(HEAT(np.linspace(0, 1, 256))[None, :, :3])
    ax.add_image(colors)
    middle, beside = y + 0.12 + thick / 2, 0.08
    ax.text(left - beside, middle, low, ha="right", va="center_baseline", fontsize=7.5, color=MUTED)
    ax.text(right + beside, middle, high, ha="left", va="center_baseline", fontsize=7.5, color=MUTED)
    ax.text((left + right) / 2, y + 0.16 + thick, meaning, ha="center", va="top", fontsize=8, color=MUTED)
