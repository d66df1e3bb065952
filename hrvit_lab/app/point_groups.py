"""Groups of points: what colour, shape and dash show, and their legends."""

import altair as alt
import pandas as pd

from hrvit_lab.app.axes import legend
from hrvit_lab.charts import MUTED, SERIES
from hrvit_lab.published import FAMILIES
from hrvit_lab.study.point_rows import OTHER_FAMILY

COLORED = {
    "source": "source",
    "family": "family",
    "kind": "kind",
    "branches": "branches",
    "attention": "attention",
    "FFN": "ffn",
    "fusion": "fusion",
}
"""What the colour of a point can show, and the column of it."""

MAX_COLORS = len(SERIES) - 1
OTHER, UNKNOWN = "others", "unknown"

SHAPES = dict(
    zip(
        (*FAMILIES.values(), OTHER_FAMILY), ("circle", "triangle-up", "diamond", "triangle-down", "square"), strict=True
    )
)
"""Shape of a point by family."""

DASHES = ([1, 0], [6, 3], [2, 2], [10, 3, 2, 3], [4, 4], [1, 4], [12, 4], [6, 2, 2, 2, 2, 2], [3, 1], [12, 2, 4, 2])
"""Dash of a line by group, beside its colour; that of others is solid."""


def groups(values: "pd.Series[str]") -> "pd.Series[str]":
    """The colour's group of each point; the rarest values are one group if there are more than colours."""
    texts = values.astype(object).where(values.notna(), UNKNOWN).astype(str)
    frequent = texts.value_counts().index[:MAX_COLORS]
    return texts if texts.nunique() <= MAX_COLORS + 1 else texts.where(texts.isin(frequent), OTHER)


def _domain(values: "pd.Series[str]") -> list[str]:
    """Groups in the order of a legend; others and unknown ones are last."""
    present = sorted(set(values) - {OTHER, UNKNOWN}, key=lambda value: (len(value) > 1, value))
    return present + [name for name in (OTHER, UNKNOWN) if name in set(values)]


def color_channel(values: "pd.Series[str]", title: str, *, lines: bool = False) -> alt.Color:
    """Colours that are safe for colour blindness; no legend for a single group. The colours may be those of lines."""
    domain = _domain(values)
    number = sum(name not in (OTHER, UNKNOWN) for name in domain)
    colors = [*SERIES[:number], *[MUTED] * (len(domain) - number)]
    scale = alt.Scale(domain=domain, range=colors)
    return alt.Color("group:N", title=title, scale=scale, legend=legend("bottom", domain, lines=lines))


def shape_channel(data: pd.DataFrame, colored: str) -> alt.Shape:
    """The shape of a family, in one legend with the colour if colours show families as well."""
    if colored == "family":
        domain = _domain(data["group"])
        scale = alt.Scale(domain=domain, range=[SHAPES[name] for name in domain])
        return alt.Shape("group:N", title=colored, scale=scale, legend=legend("bottom", domain))
    domain = [name for name in SHAPES if name in set(data["family"])]
    scale = alt.Scale(domain=domain, range=[SHAPES[name] for name in domain])
    return alt.Shape("family:N", title=None, scale=scale, legend=legend("top", domain))


def dash_channel(values: "pd.Series[str]", title: str) -> alt.StrokeDash:
    """A dash for each group, beside its colour and in the same legend."""
    domain = _domain(values)
    dashes = [list(DASHES[place]) if place < len(DASHES) else [1, 0] for place in range(len(domain))]
    scale = alt.Scale(domain=domain, range=dashes)
    return alt.StrokeDash("group:N", title=title, scale=scale, legend=legend("bottom", domain, lines=True))
