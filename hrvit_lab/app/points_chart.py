"""Charts of points: two quantities against each other."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrvit_lab.app.axes import NARROW, is_logarithmic, logarithmic_ticks, plain_axis, with_legend, wrapped
from hrvit_lab.app.point_groups import COLORED, color_channel, groups, shape_channel
from hrvit_lab.app.point_names import FAR, HEIGHT, LINE, PADDING, PLACES, WIDTH, place_names, positions
from hrvit_lab.charts import shorten
from hrvit_lab.metrics import METRICS, si_scale
from hrvit_lab.study.point_rows import PUBLISHED
from hrvit_lab.study.points import pareto_front
from hrvit_lab.study.quantities import Quantity
from hrvit_lab.study.tables import DISTURBED

ERROR = " error"
ERRORS = "Error rate on a logarithmic axis"
ERRORS_HELP = "Shows 100 % minus the value. Differences between accurate networks become visible."
SAME = " = "
"""Between the names of variants that are one network."""
FEW = 20
"""Points of which a name may be far from its own, with a line to it."""
MAX_NAMES = 25
MAX_AXIS = 46
"""Characters of a line of an axis's title, which is in larger letters than the conditions of the chart."""

MAX_LABEL = 40
"""Characters of the name of a point, which may be that of several variants."""
MAX_NAMED = 400
"""Above this number of points, only those on the front are named."""


def label(name: str) -> str:
    """A name as it is drawn beside a point."""
    return shorten(name, MAX_LABEL)


def as_errors(table: pd.DataFrame, quantity: Quantity) -> tuple[pd.DataFrame, Quantity]:
    """The table with error rates in place of a score in percent, and their quantity."""
    error = as_error(quantity)
    key, end = quantity.key, error.key
    columns = {
        end: 100 - table[key],
        f"{end} low": 100 - table[f"{key} high"],
        f"{end} high": 100 - table[f"{key} low"],
        f"{end} {DISTURBED}": table[f"{key} {DISTURBED}"],
    }
    return table.assign(**columns), error


def as_error(score: Quantity) -> Quantity:
    """The error rate that belongs to a score in percent."""
    return replace(score, metric=score.metric + ERROR, label=score.label + ERROR, better="lower")


def error_rates(data: pd.DataFrame) -> pd.DataFrame:
    """The points of a chart with error rates in place of a score in percent on the vertical axis."""
    return data.assign(y=100 - data["y"], y_low=100 - data["y_high"], y_high=100 - data["y_low"])


def merged(data: pd.DataFrame, short: "pd.Series[str]") -> pd.DataFrame:
    """The points with one for each network: variants with the same config and values, which would hide each other.

    Its name has those of all its variants, joined by ``SAME``; everything else is that of the first.

    Args:
        data: as for ``scatter_chart``, with ``config_id``; points without one stay as they are.
        short: the names of points that stay alone.
    """
    source = data["source"] if "source" in data else data["x"]
    known = data["config_id"].notna()
    ids = data["config_id"].astype(object).where(known, data["row"].astype(object))
    keys = list(zip(*(column.tolist() for column in (ids, source, data["x"], data["y"])), strict=True))
    variants: dict[tuple[object, ...], list[str]] = {}
    for key, name in zip(keys, data["name"].tolist(), strict=True):
        variants.setdefault(key, []).append(name)
    names = [
        SAME.join(dict.fromkeys(variants[key])) if len(variants[key]) > 1 else alone
        for key, alone in zip(keys, short.tolist(), strict=True)
    ]
    first = ~pd.Series(keys, index=data.index).duplicated()
    return data.assign(name=names)[first].reset_index(drop=True)


def scatter_data(table: pd.DataFrame, x: Quantity, y: Quantity, colored: str) -> pd.DataFrame:
    """The points of a chart of results, for ``scatter_chart``.

    Columns: ``row`` (index in the table), ``name``, ``source``, ``kind``, ``family``, ``group`` (by colour), ``x``,
    ``x_low``, ``x_high``, ``y``, ``y_low``, ``y_high``, ``text_x`` and ``text_y`` (values with units), ``front``,
    ``disturbed``, ``place``.
    """
    data = pd.DataFrame(
        {
            "row": table.index,
            **{name: table[name].astype(str).tolist() for name in ("name", "source", "kind", "family")},
        }
    )
    data["config_id"] = table["config_id"].tolist()
    data["group"] = groups(table[COLORED[colored]]).tolist()
    for axis, quantity in (("x", x), ("y", y)):
        values = table[quantity.key].astype(float)
        data[axis] = values.tolist()
        for end in ("low", "high"):
            data[f"{axis}_{end}"] = table[f"{quantity.key} {end}"].astype(float).fillna(values).tolist()
        data[f"text_{axis}"] = [value_text(quantity, value) for value in values]
    data["front"] = pareto_front(table, x, y)
    data["disturbed"] = table[[f"{x.key} {DISTURBED}", f"{y.key} {DISTURBED}"]].notna().any(axis=1).to_numpy()
    return with_places(merged(data, data["name"]), x, y)


def scatter_titles(x: Quantity, y: Quantity, colored: str) -> dict[str, str]:
    """What hovering over a point of ``scatter_data`` shows: titles by column."""
    shown = {"name": "variant", "source": "source", "kind": "kind", "family": "family", "group": colored}
    return shown | {"text_y": y.label, "text_x": x.label}


def with_places(data: pd.DataFrame, x: Quantity, y: Quantity) -> pd.DataFrame:
    """The points with ``place``: where each name is drawn, "" if it is not."""
    return data.assign(place=_places(clipped(data, x, y), x, y))


def clipped(data: pd.DataFrame, x: Quantity, y: Quantity) -> pd.DataFrame:
    """The points with spreads that end on a logarithmic axis, which has no 0."""
    ends = {
        f"{axis}_low": data[f"{axis}_low"].clip(lower=data[axis].min() / 10)
        for axis, quantity in (("x", x), ("y", y))
        if scale_type(quantity, data[axis]) == "log"
    }
    return data.assign(**ends)


def scatter_values(data: pd.DataFrame, x: Quantity, y: Quantity, colored: str) -> pd.DataFrame:
    """The values of a scatter chart, for its CSV file: the ends of spreads are not clipped."""
    texts = {name: data[name] for name in ("name", "source", "kind", "family") if name in data}
    texts[colored] = data["group"]
    numbers = {
        f"{quantity.key}{f' {end}' if end else ''}": data[f"{axis}_{end}" if end else axis]
        for axis, quantity in (("x", x), ("y", y))
        for end in ("", "low", "high")
    }
    return pd.DataFrame({**texts, **numbers, "on the Pareto front": data["front"], "unreliable": data["disturbed"]})


def scatter_conditions(data: pd.DataFrame, *quantities: Quantity) -> str:
    """How to read a scatter chart: number of points, front, and what bars and crosses are. Its axes name the rest."""
    said = [f"{len(data):,} point{'s' * (len(data) != 1)}. Line and filled points: Pareto front."]
    barred = [
        q for q, axis in zip(quantities, "xy", strict=True) if (data[f"{axis}_low"] != data[f"{axis}_high"]).any()
    ]
    timed = [METRICS[q.metric].group in ("latency", "memory") if q.metric in METRICS else False for q in barred]
    if not all(timed):
        said.append("Bars: ± 1 standard deviation over seeds.")
    if any(timed):
        said.append("Bars of latency: 10th to 90th percentile.")
    if data["disturbed"].any():
        said.append("Crosses: unreliable, not on the front.")
    if _some_published(data):
        said.append("Rings: published values.")
    return " ".join(said)


def _some_published(data: pd.DataFrame) -> bool:
    """Whether published points are among points of other kinds, so that they have to be marked."""
    return PUBLISHED in set(data["kind"]) and data["kind"].nunique() > 1


def scale_type(quantity: Quantity, values: "pd.Series[float]") -> Literal["log", "linear"]:
    """Logarithmic for error rates, if none is 0, and for positive values that span more than a factor of ten."""
    logarithmic = values.min() > 0 if quantity.metric.endswith(ERROR) else is_logarithmic(values)
    return "log" if logarithmic else "linear"


def value_text(quantity: Quantity, value: float) -> str:
    """A value with its unit.

    >>> value_text(Quantity("macs", "MACs", "", "", "lower"), 2.75e9)
    '2.75 G'
    """
    if quantity.unit == "%":
        return f"{value:.2f} %"
    scale, prefix = (1.0, quantity.unit) if quantity.unit else si_scale(value)
    return f"{value / scale:.4g} {prefix}".rstrip()


def _places(data: pd.DataFrame, x: Quantity, y: Quantity) -> list[str]:
    """Where names are drawn; those of points on the front are placed first, then those of points that stand apart."""
    across, up = (
        positions(
            data[axis].to_numpy(dtype=float), data[f"{axis}_low"].min(), data[f"{axis}_high"].max(), length, padding,
            logarithmic=scale_type(quantity, data[axis]) == "log",
        )
        for axis, quantity, length, padding in zip("xy", (x, y), (WIDTH, HEIGHT), PADDING, strict=True)
    )  # fmt: skip
    points, front = np.stack([across, HEIGHT - up], axis=1), data["front"].to_numpy(dtype=bool)
    first = f"{'upper' if y.better == 'higher' else 'lower'} {'left' if x.better == 'lower' else 'right'}"
    if len(data) <= MAX_NAMED:
        names = data["name"].map(label).tolist()
        order = np.lexsort((-_to_nearest(points), ~front))[:MAX_NAMES]
        return place_names(points, names, order.tolist(), first, len(data) <= FEW)
    places = [""] * len(data)  # names may cover points of a cloud, but not each other
    named = np.flatnonzero(front)[:MAX_NAMES]
    few = place_names(points[named], data["name"].iloc[named].map(label).tolist(), range(len(named)), first)
    for index, place in zip(named, few, strict=True):
        places[index] = place
    return places


def _to_nearest(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of each point to its nearest other point, (n,)."""
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(apart, np.inf)
    return np.asarray(apart.min(axis=1))


def scatter_chart(
    data: pd.DataFrame, x: Quantity, y: Quantity, titles: Mapping[str, str], colored: str
) -> alt.LayerChart | alt.FacetChart:
    """Points with their spread, the Pareto front, and names; a click selects, the wheel zooms.

    Streamlit draws charts of more than 2,000 points on a canvas, others as SVG.

    Args:
        data: columns ``row``, ``name``, ``kind``, ``family``, ``group``, ``x``, ``x_low``, ``x_high``, ``y``,
            ``y_low``, ``y_high``, ``front``, ``disturbed`` and ``place``, and those of ``titles``.
        titles: what hovering over a mark shows, by column.
        colored: what ``group`` is.
    """
    named = data["place"] != ""
    data = clipped(data, x, y).assign(label=data["name"].where(named, "").map(label))
    x_axis, y_axis = (
        channel(
            f"{axis}:Q", title=[quantity.title, *wrapped(quantity.conditions, MAX_AXIS)],
            axis=plain_axis(
                quantity.unit, grid=axis == "y", ticks=_ticks(data, axis, quantity),
                positive=bool((data[f"{axis}_low"] >= 0).all()),
            ),
            scale=alt.Scale(type=scale_type(quantity, data[axis]), zero=False, nice=False, padding=padding),
        )
        for channel, axis, quantity, padding in ((alt.X, "x", x, PADDING[0]), (alt.Y, "y", y, PADDING[1]))
    )  # fmt: skip
    color = color_channel(data["group"], colored)
    shape = shape_channel(data, colored)
    tooltip = [alt.Tooltip(f"{column}:N", title=title) for column, title in titles.items()]
    base = alt.Chart(data)
    click = alt.selection_point(name="points", fields=["row"])
    zoom = alt.selection_interval(name="zoom", bind="scales")
    front = base.transform_filter("datum.front").mark_line(
        interpolate="step-after" if x.better == "lower" else "step-before",
        strokeWidth=1, color="gray", opacity=0.7, tooltip=None,
    ).encode(x_axis, y_axis)  # fmt: skip
    bar = base.mark_rule(opacity=0.4)
    bars = [
        bar.transform_filter(f"datum.{axis}_low != datum.{axis}_high").encode(
            low, high, other, color=color, tooltip=tooltip
        )
        for axis, low, high, other in (
            ("x", alt.X("x_low:Q"), alt.X2("x_high:Q"), y_axis),
            ("y", alt.Y("y_low:Q"), alt.Y2("y_high:Q"), x_axis),
        )
    ]
    crowded = len(data) > MAX_NAMED
    points = base.mark_point(size=30 if crowded else 80, strokeWidth=1.6).encode(
        x_axis, y_axis, color=color, shape=shape, tooltip=tooltip,
        fill=alt.condition("datum.front", color, alt.value("transparent")),
        opacity=alt.condition(click, alt.value(0.55 if crowded else 1), alt.value(0.25)),
    ).add_params(click, zoom)  # fmt: skip
    crosses = base.transform_filter("datum.disturbed").mark_point(
        shape="cross", angle=45, size=160, color="gray", filled=True
    ).encode(x_axis, y_axis, tooltip=tooltip)  # fmt: skip
    shown_here = alt.condition(f"{NARROW} && !datum.front", alt.value(0), alt.value(1))
    leaders = [
        base.transform_filter(alt.datum.place == place)
        .mark_rule(x2Offset=dx, y2Offset=dy - math.copysign(LINE / 2, dy), color="gray", strokeWidth=0.7)
        .encode(x_axis, y_axis, alt.X2("x:Q"), alt.Y2("y:Q"), opacity=shown_here, tooltip=tooltip)
        for place, (dx, dy, _) in PLACES.items()
        if abs(dy) >= FAR and (data["place"] == place).any()
    ]
    names = [
        base.transform_filter(alt.datum.place == place)
        .mark_text(align=align, dx=dx, dy=dy, fontSize=12, color="gray")
        .encode(
            x_axis,
            y_axis,
            text="label:N",
            tooltip=tooltip,
            opacity=shown_here,
        )
        for place, (dx, dy, align) in PLACES.items()
        if (data["place"] == place).any()
    ]
    rings = base.transform_filter(alt.datum.kind == PUBLISHED).mark_point(
        size=260, color="gray", strokeWidth=1
    ).encode(x_axis, y_axis, tooltip=tooltip)  # fmt: skip
    some = [rings] if _some_published(data) else []
    return alt.layer(front, *leaders, *bars, points, *some, crosses, *names).properties(
        height=with_legend(480, data["group"].nunique())
    )


def _ticks(data: pd.DataFrame, axis: str, quantity: Quantity) -> list[float] | None:
    if scale_type(quantity, data[axis]) == "linear":
        return None
    return logarithmic_ticks(data[f"{axis}_low"].min(), data[f"{axis}_high"].max())
