"""The style of all figures: colours, fonts, titles, captions, axes; and saving figures.

pyplot is not used, so there is no global state. All colours are in `charts.COLORS`, so that a page that inlines the
SVG can replace them (dark mode).
"""

import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hrvit_lab.charts import GRID, INK, MUTED, PAPER, counted, spread
from hrvit_lab.files import write_atomically
from hrvit_lab.metrics import METRICS, PROXY, axis_label, si_scale
from hrvit_lab.plots.text import FONT, drawable

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h")


STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a `$` in a variant's name is a dollar sign
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "ytick.left": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "svg.fonttype": "none",  # keep text as text: searchable, and the page can set its colour
    "svg.hashsalt": "hrvit_lab",  # equal figures give identical files
}


DPI = 200


WIDTH = 7.4  # inches; 1480 px at 200 dpi


LEFT = 0.014  # left edge of titles and notes, as a share of the width


MAX_LABELLED, MAX_LINES, MAX_PANELS, MAX_BARS = 30, 6, 12, 26


MAX_VECTOR = 1_000  # more points are rasterized in an SVG, which otherwise takes seconds and megabytes


def si(value: float) -> str:
    """A tick's text: values from 1000 with an SI prefix, with enough digits to distinguish ticks.

    >>> si(2_500_000), si(12.5)
    ('2.5 M', '12.5')
    """
    scale, prefix = si_scale(value)
    return f"{value / scale:.6g} {prefix}".rstrip()


class Drawing(NamedTuple):
    """A figure as files: PNG (200 dpi), and SVG (text as text) without metadata such as dates and URLs."""

    png: bytes
    svg: str

    def write(self, stem: Path) -> list[Path]:
        """Write `<stem>.png` and `<stem>.svg`, and return their paths."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        contents: dict[str, bytes | str] = {"png": self.png, "svg": self.svg}
        paths = [stem.with_name(f"{stem.name}.{ending}") for ending in contents]
        for path, content in zip(paths, contents.values(), strict=True):
            write_atomically(path, content)
        return paths


@matplotlib.rc_context(STYLE)
def draw(fig: Figure) -> Drawing:
    """Draw both files of a figure with the same layout; equal figures give identical bytes."""
    fix_layout(fig)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    return Drawing(buffer.getvalue(), svg_markup(fig))


def save(fig: Figure, stem: Path) -> list[Path]:
    """Draw the figure, write `<stem>.png` and `<stem>.svg`, and return their paths."""
    return draw(fig).write(stem)


def fix_layout(fig: Figure) -> None:
    """Compute the layout once, so that pixel positions are final and drawing does not compute it again."""
    engine = fig.get_layout_engine()
    if engine is not None:
        engine.execute(fig)
        fig.set_layout_engine(None)


@matplotlib.rc_context(STYLE)
def svg_markup(fig: Figure) -> str:
    """The figure as an SVG document."""
    fix_layout(fig)
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", dpi=DPI, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return buffer.getvalue()


def new_figure(body: float = 3.7) -> tuple[Figure, Axes]:
    fig = Figure(figsize=(WIDTH, body), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots()


def add_frame(fig: Figure, title: str, caption: str = "", legend: Axes | None = None, note: str = "") -> float:
    """Add title, caption and legend above the figure and a note below; the figure's height grows accordingly.

    Returns:
        The height below the figure's body, in inches; a layout engine leaves it free.
    """
    titles, captions, notes = (
        textwrap.wrap(drawable(title[:1].upper() + title[1:]), 74),
        textwrap.wrap(drawable(caption), 104),
        textwrap.wrap(drawable(note), 112),
    )
    handles, names = legend.get_legend_handles_labels() if legend else ([], [])
    columns = _columns(names)
    rows = -(-len(names) // columns)
    heights = [10, 16 * len(titles), 14 * len(captions), 18 * rows + 2 if rows else 0, 6]  # points
    above, below = sum(heights) / 72, (12 * len(notes) + 10 if notes else 6) / 72
    body = fig.get_figheight()
    height = body + above + below
    fig.set_figheight(height)

    def down(points: float) -> float:
        return 1 - points / 72 / height

    fig.text(LEFT, down(heights[0]), "\n".join(titles), va="top", fontsize=11.5, fontweight="bold")
    fig.text(
        LEFT,
        down(sum(heights[:2]) + 1),
        "\n".join(captions),
        va="top",
        fontsize=8.5,
        color=MUTED,
        linespacing=1.3,
    )
    fig.text(LEFT, 7 / 72 / height, "\n".join(notes), va="bottom", fontsize=8, color=MUTED, linespacing=1.3)
    if names:
        fig.legend(
            handles, names, loc="upper left", bbox_to_anchor=(LEFT, down(sum(heights[:3]) + 3)), ncols=columns,
            borderpad=0, borderaxespad=0, handletextpad=0.5, columnspacing=1.4, handlelength=1.3, labelspacing=0.45,
        ).set_in_layout(False)  # fmt: skip
    pad = 0.1  # inches
    engine = fig.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, below / height, 1, body / height), w_pad=pad, h_pad=0.03)
    return below


def _columns(names: Sequence[str]) -> int:
    """The number of columns of a legend with these names that fits into the figure's width."""
    widest = max(map(len, names), default=1)
    return max(1, min(len(names), int(104 / (widest + 5))))


def bars(start: tuple[Any, Any], end: tuple[Any, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Join straight bars, given by arrays of their ends, to a single line with gaps."""
    gap = np.full(len(start[0]), np.nan)
    x, y = (np.stack([one, other, gap], 1).ravel() for one, other in zip(start, end, strict=True))
    return x, y


def joined(lines: Iterable[tuple[Any, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Join lines (x, y) to a single line with gaps, which is much faster to draw."""
    pieces = [np.array([[*x, np.nan], [*y, np.nan]], dtype=float) for x, y in lines]
    whole = np.concatenate(pieces, axis=1) if pieces else np.zeros((2, 0))
    return whole[0], whole[1]


def missing_note(count: int, total: int, keys: Iterable[str], dataset: str | None) -> str:
    """The note on variants that are not shown."""
    names = " or ".join(axis_label(key, dataset) for key in keys)
    return f"{count} of {total} variants are not shown, because they have no value for {names}." if count else ""


def empty_figure(fig: Figure, ax: Axes) -> Figure:
    ax.set_axis_off()
    ax.text(0.5, 0.5, "No values to show.", transform=ax.transAxes, ha="center", va="center", color=MUTED)
    return fig


def spread_caption(rows: pd.DataFrame, *keys: str) -> str:
    """A sentence on what the error bars or the band show."""
    said = []
    for key in keys:
        if not spread(rows, key).any():
            continue
        name = METRICS[key].label.removesuffix(PROXY)
        if f"{key}_std" in rows:
            seeds = f" over {counted(rows[f'{key}_n'].dropna().astype(int), 'seed')}" if f"{key}_n" in rows else ""
            said.append(f"{name[:1].upper()}{name[1:]}: mean ± 1 std{seeds}.")
        else:
            said.append(f"{name[:1].upper()}{name[1:]}: median, 10th to 90th percentile.")
    return " ".join(said)


def groups_of(rows: pd.DataFrame) -> list[tuple[str | None, pd.DataFrame]]:
    """Rows by `matching` (as is, or scaled to equal cost), if the study has that column."""
    if "matching" not in rows or rows["matching"].nunique() < 2:
        return [(None, rows)]
    return [(str(name), part) for name, part in rows.groupby(rows["matching"].fillna("–"), sort=False)]


def set_metric_axis(ax: Axes, which: str, values: "pd.Series[float]") -> None:
    """Set SI ticks, and a logarithmic scale if the values span more than a factor of ten."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = float(values.min()), float(values.max())
    if which == "x" and 0 < low < high / 10:
        ax.set_xscale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
