"""Labels of points, placed so that they do not overlap points, lines or other labels."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hrvit_lab.charts import INK, MUTED, spread
from hrvit_lab.metrics import METRICS
from hrvit_lab.plots.style import MAX_VECTOR, fix_layout


def place_names(
    ax: Axes, rows: pd.DataFrame, x: str, y: str, names: Sequence[tuple[int, str]], front: pd.DataFrame
) -> None:
    """Label points with names. The nearest free position is used; distant labels get a line to their point.

    Labels may overlap error bars if there is no other position. A label without a free position, or that would appear
    to belong to another point, is omitted.

    Args:
        names: (row, text). Rows on the front are placed first; within both groups, rows with the closest neighbours
            first.
        front: the rows on the Pareto front by x, whose line should not be covered.
    """
    fig = ax.figure
    assert isinstance(fig, Figure)
    fix_layout(fig)
    renderer = FigureCanvasAgg(fig).get_renderer()
    pixel = fig.dpi / 72  # pixels per point
    to_pixels = ax.transData.transform
    points = to_pixels(rows[[x, y]].to_numpy(dtype=float))
    bars = []
    for column, sign in ((0, -1), (1, 1)):  # the ends of the error bars
        for axis, key in enumerate((x, y)):
            ends = rows[[x, y]].to_numpy(dtype=float, copy=True)
            ends[:, axis] += sign * spread(rows, key)[column]
            if ax.get_xscale() == "log":
                ends[:, 0] = ends[:, 0].clip(min=rows[x].min() / 10)
            bars.append(_boxes(points, to_pixels(ends), pixel))
    steps = to_pixels(front[[x, y]].to_numpy(dtype=float))
    corners = (
        np.stack([steps[1:, 0], steps[:-1, 1]], 1)
        if METRICS[x].better == "lower"
        else np.stack([steps[:-1, 0], steps[1:, 1]], 1)
    )
    step = _boxes(steps[:-1], corners, pixel), _boxes(corners, steps[1:], pixel)
    solid, faint = np.concatenate([_boxes(points, points, 4.5 * pixel), *step]), np.concatenate(bars)
    if len(rows) > MAX_VECTOR:
        faint = faint[:0]  # with this many points, error bars cover everything
    frame = ax.get_window_extent(renderer)
    placed = np.zeros((0, 4))
    others = {row: points[np.hypot(*(points - points[row]).T) > pixel] for row, _ in names}  # points at other positions

    def urgency(named: tuple[int, str]) -> tuple[bool, float]:
        row, _ = named
        return row not in front.index, np.hypot(*(others[row] - points[row]).T).min(initial=np.inf)

    for row, name in sorted(names, key=urgency):
        text = ax.annotate(
            name,
            (rows[x][row], rows[y][row]),
            (0, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
            zorder=5,
        )
        size = text.get_window_extent(renderer)
        for over_bars, (far, *place) in itertools.product((False, True), _PLACES):
            corner = points[row] + pixel * np.array(place[:2]) - np.array(place[2:]) * (size.width, size.height)
            if far:  # with a line, the label may be shifted into the axes
                corner[0] = min(max(corner[0], frame.x0 + 2 * pixel), frame.x1 - size.width)
            box = np.concatenate([corner, corner + np.array([size.width, size.height])])
            inside = box[0] >= frame.x0 and box[1] >= frame.y0 and box[2] <= frame.x1 and box[3] <= frame.y1 + 2 * pixel
            line = np.linspace(points[row], points[row].clip(box[:2], box[2:]), 20) if far else np.zeros((0, 2))
            trail = _boxes(line, line, pixel)
            free = not _meet(box[None], solid) and (over_bars or not _meet(box[None], faint))
            if inside and free and not _meet(trail, placed) and _is_own(points[row], others[row], box, line, pixel):
                # Annotations are placed at their baseline: shift by the descent.
                baseline = points[row][1] - size.y0
                offset = (corner - points[row] + (0, baseline)) / pixel
                text.set_position((offset[0], offset[1]))
                placed = np.concatenate([placed, box[None]])
                solid = np.concatenate([solid, box[None], trail])
                if far:
                    ends = ax.transData.inverted().transform(line[[0, -1]])
                    ax.add_artist(Line2D(ends[:, 0], ends[:, 1], color=MUTED, lw=0.6, zorder=1.5))
                break
        else:
            text.remove()


def _is_own(
    point: NDArray[np.float64],
    others: NDArray[np.float64],
    box: NDArray[np.float64],
    line: NDArray[np.float64],
    pixel: float,
) -> bool:
    """Whether a label in that box clearly belongs to this point: no other point is close, or a line leads to it without
    touching other points."""
    if not len(line):
        own, apart = (np.hypot(*(at - at.clip(box[:2], box[2:])).T) for at in (point, others))
        return bool((1.5 * own < apart).all())
    own, apart = np.hypot(*(line - point).T)[:, None], np.hypot(*(line[:, None] - others[None]).T).T
    return bool(((apart > 6 * pixel) | (own < apart)).all())


_NEAR, _FAR = (7, 12, 18), (26, 36, 48, 62, 78)
_FARTHER = (96, 120, 150)
_ABOUT = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.75, 0.75), (-0.75, 0.75), (0.75, -0.75), (-0.75, -0.75))


_ASLANT = tuple(
    (dx, dy) for dy in (0.6, -0.6) for dx in (0.8, -0.8, 0.35, -0.35)
)  # directions that differ from those of error bars
_ANY = (*_ASLANT, *((dx, dy) for dy in (0.2, -0.2) for dx in (0.95, -0.95)))


# Positions of a label relative to its point: whether it needs a line, the offset in points, and the alignment as shares
# of the text's width and height.
_PLACES = [
    (far, dx * reach, dy * reach, float(dx < 0) if far else (1 - dx) / 2, (1 - dy) / 2)
    for far, reaches, directions in ((False, _NEAR, _ABOUT), (True, _FAR, _ASLANT), (True, _FARTHER, _ANY))
    for reach in reaches
    for dx, dy in directions
]


def _meet(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether any of the boxes a, (n, 4), overlaps any of the boxes b, (m, 4)."""
    return bool(((a[:, None, :2] < b[:, 2:]) & (a[:, None, 2:] > b[:, :2])).all(-1).any())


def _boxes(a: NDArray[np.float64], b: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """Boxes (n, 4) that span the points a and b, (n, 2) each, with a margin."""
    return np.concatenate([np.minimum(a, b) - margin, np.maximum(a, b) + margin], axis=1)
