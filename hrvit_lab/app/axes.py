"""Axes of charts that read plainly: no powers, and SI prefixes for counts."""

import altair as alt
import pandas as pd


def is_logarithmic(values: "pd.Series[float]") -> bool:
    """Whether an axis of these values is logarithmic: all are positive and span more than a factor of ten."""
    return bool(0 < values.min() < values.max() / 10)


def plain_axis(unit: str, grid: bool) -> alt.Axis:
    """Plain numbers; for counts, which have no unit, SI prefixes from a thousand on."""
    number = "format(datum.value, ',.6~r')"
    label = number if unit else f"abs(datum.value) < 1000 ? {number} : format(datum.value, '.6~s')"
    return alt.Axis(labelExpr=label, tickCount=7, labelFlush=False, labelOverlap=True, grid=grid)
