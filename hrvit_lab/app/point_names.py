"""Where the names of a chart's points are drawn. The browser draws the chart, so that its size is not known here."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 370
"""Plot area in pixels for which names are placed. In a larger one, points and names are farther apart."""

PADDING = (90, 30)
"""Pixels between the data and the edges of the plot area, (x, y)."""

CHARACTER, LINE = 6.2, 14
"""Width of a character and height of a line at font size 12, in pixels."""

RADIUS = 6
"""Of a point, in pixels."""

PLACES: dict[str, tuple[int, int, Literal["left", "center", "right"]]] = {
    "upper left": (-8, -9, "right"),
    "upper right": (8, -9, "left"),
    "lower left": (-8, 9, "right"),
    "lower right": (8, 9, "left"),
    "above": (0, -16, "center"),
    "below": (0, 16, "center"),
    "right": (11, 0, "left"),
    "left": (-11, 0, "right"),
}
"""Offset of a name from its point in pixels (x to the right, y down), and its alignment."""

FAR = 20
"""A name at least so many pixels above or below its point has a line to it."""

_NEAR = len(PLACES)

_FAR_SIDES: tuple[tuple[int, int, Literal["left", "center", "right"]], ...] = (
    (14, -1, "left"), (-14, -1, "right"), (14, 1, "left"), (-14, 1, "right"), (0, -1, "center"), (0, 1, "center"),
    (50, -1, "left"), (-50, -1, "right"), (50, 1, "left"), (-50, 1, "right"),
)  # fmt: skip
PLACES |= {
    f"far {distance} {number}": (dx, sign * distance, align)
    for distance in (28, 46, 66, 90, 120)
    for number, (dx, sign, align) in enumerate(_FAR_SIDES)
}


def positions(
    values: NDArray[np.float64], low: float, high: float, length: int, padding: int, logarithmic: bool = False
) -> NDArray[np.float64]:
    """Pixels from the start of an axis, (n,), if its scale spans ``low`` to ``high`` and has padding at both ends."""
    if logarithmic:
        values, low, high = np.log10(values), float(np.log10(low)), float(np.log10(high))
    share = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    return np.asarray(padding + (length - 2 * padding) * share)


def box(point: NDArray[np.float64], name: str, place: str) -> NDArray[np.float64]:
    """Left, top, right and bottom of a name in pixels, (4,), with y from the top down."""
    dx, dy, align = PLACES[place]
    width = CHARACTER * len(name)
    left = point[0] + dx - {"left": 0, "center": width / 2, "right": width}[align]
    top = point[1] + dy - LINE / 2
    return np.array([left, top, left + width, top + LINE])


def place_names(
    points: NDArray[np.float64], names: Sequence[str], order: Sequence[int], first: str, far: bool = True
) -> list[str]:
    """A key of ``PLACES`` for each name, or "" for a name without room.

    A name stays within the plot area, and covers neither another name nor the point of another. Places beside the
    point are tried before those far from it.

    Args:
        points: pixels from the left and from the top, (n, 2).
        order: of the names, by their index; earlier names take the places that later ones would need.
        first: the place to try first.
        far: whether a name may be far from its point: with many points, lines to them would be a tangle.
    """
    tried = sorted(list(PLACES)[: None if far else _NEAR], key=lambda place: place != first)
    placed = np.zeros((0, 4))
    places = [""] * len(names)
    for index in order:
        others = points[np.abs(points - points[index]).max(axis=1) > 1]
        taken = np.concatenate([placed, np.concatenate([others - RADIUS, others + RADIUS], axis=1)])
        for place in tried:
            name = box(points[index], names[index], place)
            inside = (name[:2] >= 0).all() and (name[2:] <= (WIDTH, HEIGHT)).all()
            if inside and not ((name[:2] < taken[:, 2:]) & (name[2:] > taken[:, :2])).all(axis=1).any():
                placed = np.concatenate([placed, name[None]])
                places[index] = place
                break
    return places
