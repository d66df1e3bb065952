"""Details of selected points: all values, what distinguishes their configs, and links to other pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from hrvit_lab.app.builder.exports import show_value
from hrvit_lab.app.navigate import inside_label, link_to_build, link_to_compare, link_to_look_inside, preset_of
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import PRESETS, ConfigError, HRViTConfig, diff
from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.network.baselines import NetworkConfig, network_from_dict
from hrvit_lab.study.point_rows import PUBLISHED
from hrvit_lab.study.quantities import Quantity
from hrvit_lab.study.tables import DISTURBED

MAX_POINTS = 6
"""Points whose details are shown."""

HEADS = ("quantity", "conditions", "field")
"""Heads of columns that are not names of points."""

MAX_NAME = 100
"""Characters of a config's name."""


def draw_details(rows: pd.DataFrame, quantities: Mapping[str, Quantity]) -> None:
    """Everything known of the selected points, each in a column.

    Args:
        rows: of ``points.Points.table``.
    """
    st.subheader("Details")
    if len(rows) > MAX_POINTS:
        st.caption(f"The first {MAX_POINTS} of {len(rows):,} selected points.")
    rows = rows.head(MAX_POINTS)
    names = distinct_names(rows)
    st.dataframe(values_table(rows, names, quantities), hide_index=True, width="stretch", placeholder="–")
    found = {name: network_of(point) for name, (_, point) in zip(names, rows.iterrows(), strict=True)}
    networks = {name: network for name, network in found.items() if network is not None}
    configs = {name: network for name, network in networks.items() if isinstance(network, HRViTConfig)}
    _draw_changes(configs)
    for name, (_, point) in zip(names, rows.iterrows(), strict=True):
        if name not in configs:
            st.caption(plain(f"{name}: {why_no_config(point, networks.get(name))}"))
    inside = [shown for _, point in rows.iterrows() if (shown := shown_inside(point)) is not None]
    with st.container(horizontal=True):
        if networks:
            link_to_compare([*networks.values()])
        if inside:
            link_to_look_inside(inside[:2])
        for name, config in configs.items():
            link_to_build(config, "Open in Build" if len(configs) == 1 else f"Open {name} in Build")


def distinct_names(rows: pd.DataFrame) -> list[str]:
    """A name for each point: with its source, and then with a number, if others have the same."""
    plain_names = rows["name"].astype(str)
    plain_names = plain_names.where(~plain_names.isin(HEADS), plain_names + " (network)")
    twice = plain_names.duplicated(keep=False)
    names = plain_names.where(~twice, plain_names + " (" + rows["source"].astype(str) + ")").tolist()
    return [
        name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def values_table(rows: pd.DataFrame, names: Sequence[str], quantities: Mapping[str, Quantity]) -> pd.DataFrame:
    """All values of the points: ``quantity``, a column for each point, ``conditions``."""
    known = [quantity for key, quantity in quantities.items() if rows[key].notna().any()]
    table = pd.DataFrame({"quantity": [quantity.label for quantity in known]})
    for name, (_, point) in zip(names, rows.iterrows(), strict=True):
        table[name] = [_value(quantity, point) for quantity in known]
    return table.assign(conditions=[quantity.conditions for quantity in known])


def _value(quantity: Quantity, point: "pd.Series[Any]") -> str | None:
    value = point[quantity.key]
    if pd.isna(value):
        return None
    metric = METRICS.get(quantity.metric)
    text = f"{value:.2f} %" if metric is None or quantity.unit == "%" else format_value(metric, value)
    why = point[f"{quantity.key} {DISTURBED}"]
    return f"{text} (unreliable: {why})" if isinstance(why, str) else text


def _draw_changes(configs: Mapping[str, HRViTConfig]) -> None:
    """Fields in which the configs differ; a single config is compared with the nearest preset."""
    if not configs:
        return
    compared = dict(configs)
    if len(configs) == 1:
        [(name, config)] = configs.items()
        nearest = min(PRESETS.values(), key=lambda preset: len(diff(preset, config)))
        preset = nearest.name if nearest.name != name else f"{nearest.name} (preset)"
        compared = {preset: nearest, name: config}
    table = changes_table(compared)
    if table.empty:
        st.caption(plain(f"{' and '.join(compared)} have the same config."))
    else:
        st.dataframe(table, hide_index=True, width="stretch")


def changes_table(configs: Mapping[str, HRViTConfig]) -> pd.DataFrame:
    """The fields, names apart, in which any of the configs differs from the first: ``field``, a column for each."""
    first, *others = configs.values()
    fields = dict.fromkeys(field for other in others for field in diff(first, other) if field != "name")
    values = {name: [show_value(getattr(config, field)) for field in fields] for name, config in configs.items()}
    return pd.DataFrame({"field": [*fields], **values})


def network_of(point: "pd.Series[Any]") -> NetworkConfig | None:
    """The validated config of a point, with its name; None if it has none, or one that is no longer valid."""
    fields = point["config"]
    if not isinstance(fields, Mapping):
        return None
    try:
        network = network_from_dict(dict(fields))
    except (ConfigError, TypeError, AttributeError):
        return None
    if isinstance(network, HRViTConfig) and preset_of(network) is None:
        return network.replace(name=str(point["name"])[:MAX_NAME])
    return network


def why_no_config(point: "pd.Series[Any]", network: NetworkConfig | None) -> str:
    """Why Build does not open a point."""
    if network is not None:
        return "a model of timm, which Build does not change"
    if point["kind"] == PUBLISHED:
        return "no preset has its layout"
    return "there is no config of this network, or it is no longer valid"


def shown_inside(point: "pd.Series[Any]") -> str | None:
    """What Look inside calls the network of a point: a training with weights, or a preset; None if it has neither."""
    from hrvit_lab.app import subjects

    offered, source = subjects.networks(), str(point["source"])
    if Path(offered.get(source, "")).is_dir() and source in offered:
        return source
    network = network_of(point)
    return inside_label(network) if isinstance(network, HRViTConfig) else None
