"""Axes and titles of charts that read plainly: no powers, SI prefixes for counts, lines that fit a telephone."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import pandas as pd
from altair.utils import schemapi

from hrvit_lab.charts import shorten

schemapi.disable_debug_mode()  # a chart is validated as a whole when it is drawn; by default, each part is as well

LINE = 64
"""Characters of a line of small letters that fit the screen of a telephone."""

NARROW = "width < 500"
"""Whether the plot area is that of a telephone, an expression of Vega."""

MAX_LABEL, CHARACTER, SYMBOL, MARGIN = 260, 6, 40, 30
"""Of a legend in pixels: largest label, a character, a symbol with its gaps, the axis beside the plot."""

LEGEND_ROW, LEGEND_ROOM = 30, 80
"""Height of a row of a legend on a page in pixels, and what a chart has room for."""

MAX_TEXT = 400
"""Characters of a line before it is wrapped; longer ones are truncated in the middle."""


def wrapped(text: str, width: int = LINE) -> list[str]:
    """Lines of at most ``width`` characters; every line of the text begins a new one.

    >>> wrapped("cpu, one thread\\ndigits", 8)
    ['cpu, one', 'thread', 'digits']
    """
    parts = [shorten(part, MAX_TEXT) for part in text.splitlines()]
    return [line for part in parts for line in textwrap.wrap(part, width, break_on_hyphens=False)]


def legend(orient: Literal["top", "bottom"], names: Sequence[str], *, lines: bool = False) -> alt.Legend | None:
    """A legend with as many columns as there is room for; none for a single name.

    Args:
        lines: symbols are lines, which show dashes.
    """
    if len(names) < 2:
        return None
    width = min(MAX_LABEL, CHARACTER * max(map(len, names)))
    columns = alt.expr(f"max(1, floor((width + {MARGIN}) / {width + SYMBOL}))")
    symbols: dict[str, Any] = {"symbolType": "stroke", "symbolSize": 400, "symbolStrokeWidth": 2} if lines else {}
    return alt.Legend(orient=orient, columns=columns, symbolLimit=20, labelLimit=MAX_LABEL, symbolOpacity=1, **symbols)


def with_legend(height: int, number: int) -> int:
    """Height of a chart in pixels with a legend of so many names, which has one column on a telephone.

    >>> with_legend(480, 1), with_legend(480, 6)
    (480, 580)
    """
    return height + max(0, LEGEND_ROW * number - LEGEND_ROOM)


def is_logarithmic(values: "pd.Series[float]") -> bool:
    """Whether an axis of these values is logarithmic: all are positive and span more than a factor of ten."""
    return bool(0 < values.min() < values.max() / 10)


def plain_axis(unit: str, grid: bool, ticks: list[float] | None = None, *, positive: bool = False) -> alt.Axis:
    """Plain numbers; for counts, which have no unit, SI prefixes from a thousand on.

    Args:
        ticks: their values; None: about seven.
        positive: ticks below 0, which padding can add, have no label.
    """
    number = "format(datum.value, ',.6~r')"
    label = number if unit else f"abs(datum.value) < 1000 ? {number} : format(datum.value, '.6~s')"
    label = f"datum.value < 0 ? '' : {label}" if positive else label
    where = {"tickCount": 7} if ticks is None else {"values": ticks}
    return alt.Axis(labelExpr=label, labelFlush=False, labelOverlap=True, grid=grid, **where)


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two values, and the nearest ones outside.

    >>> logarithmic_ticks(0.8, 30)
    [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
    """
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    inside = [place for place, tick in enumerate(ticks) if low <= tick <= high]
    first = inside[0] if inside else next(place for place, tick in enumerate(ticks) if tick > high)
    last = inside[-1] if inside else first - 1
    return ticks[first - 1 : last + 2]
