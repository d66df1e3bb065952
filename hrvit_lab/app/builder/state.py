"""The state of the page "Build": kept in the session and written to the address, so that a link reproduces it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import streamlit as st

from hrvit_lab.app.builder.kinds import from_text, kinds, to_text
from hrvit_lab.app.builder.predicted import LATENCY
from hrvit_lab.config import (
    MAX_BRANCHES,
    PER_BRANCH,
    PRESETS,
    ConfigError,
    HRViTConfig,
    diff,
    preset,
    preset_names,
    suggest,
)
from hrvit_lab.plots.diagram import COSTS

HELD, EDITED, MESSAGE = "build", "build edited", "build message"
"""Keys of the session's state: the draft; whether a widget has just changed it; a sentence to show once."""

MAX_SIDE = 4096  # pixels
MAX_STAGES = 32
MAX_TEXT = 1000  # characters of a parameter
GROUPS = ("stage", "branch")


class Draft(NamedTuple):
    """Everything that the page shows.

    Attributes:
        preset: that the fields started from.
        fields: all fields of a config, each within the bounds of its kind; together they may be invalid.
        against: the preset that costs are compared with.
        size: height and width of the input in pixels.
        cost, by: what the drawing and the bars show.
    """

    preset: str
    fields: Mapping[str, Any]
    against: str
    size: tuple[int, int] = (224, 224)
    cost: str = COSTS[0]
    by: str = GROUPS[0]


VIEW = ("preset", "against", "resolution", "cost", "by")
"""Parameters of an address that are not fields of a config."""


def draft_of(config: HRViTConfig) -> Draft:
    """A draft with the fields of a config; its start is the preset with the fewest differences."""
    named = config.name in preset_names() and preset(config.name) == config
    start = config.name if named else min(PRESETS, key=lambda name: len(diff(PRESETS[name], config)))
    return Draft(start, config.model_dump(), start)


def draft_of_preset(name: str) -> Draft:
    """The draft that a preset begins with."""
    return Draft(name, preset(name).model_dump(), name)


# -- the address -----------------------------------------------------------------------------------------


def to_query(draft: Draft) -> dict[str, str]:
    """The parameters of the draft's address: the preset, and what differs from it."""
    start = draft_of_preset(draft.preset)
    query = {"preset": draft.preset}
    query |= {field: to_text(field, value) for field, value in draft.fields.items() if value != start.fields[field]}
    if draft.against != start.against:
        query["against"] = draft.against
    if draft.size != start.size:
        height, width = draft.size
        query["resolution"] = str(height) if height == width else f"{height}~{width}"
    query |= {name: value for name in ("cost", "by") if (value := getattr(draft, name)) != getattr(start, name)}
    return query


def from_query(query: Mapping[str, str]) -> Draft:
    """The draft of an address. Addresses are untrusted: everything is bounded and checked.

    Raises:
        ConfigError: in one sentence, for a parameter that is unknown, too long or out of bounds.
    """
    for name, text in query.items():
        if name not in (*VIEW, *kinds()):
            raise ConfigError(f"the address has an unknown parameter {name[:40]!r}; {suggest(name, kinds())}")
        if len(text) > MAX_TEXT:
            raise ConfigError(f"the address has {len(text)} characters in {name}; give at most {MAX_TEXT}")
    draft = draft_of_preset(query.get("preset", next(iter(PRESETS))))
    fields = {field: from_text(field, query[field]) for field in kinds() if field in query}
    fields = {**draft.fields, **fields}
    _check_shape(fields)
    return Draft(
        draft.preset,
        fields,
        preset(query["against"]).name if "against" in query else draft.against,
        _size(query["resolution"]) if "resolution" in query else draft.size,
        _one_of("cost", query.get("cost", draft.cost), (*COSTS, LATENCY)),
        _one_of("by", query.get("by", draft.by), GROUPS),
    )


def _check_shape(fields: Mapping[str, Any]) -> None:
    """Numbers of stages, branches and entries, which the widgets cannot show otherwise."""
    stages = fields["depths"]
    branches = max(map(len, stages))
    if len(stages) > MAX_STAGES or branches > MAX_BRANCHES:
        raise ConfigError(
            f"the address has depths of {len(stages)} stages and {branches} branches; give at most {MAX_STAGES} stages "
            f"and {MAX_BRANCHES} branches"
        )
    for field in PER_BRANCH:
        if len(fields[field]) != branches:
            raise ConfigError(
                f"the address has {len(fields[field])} {field} for {branches} branches; give {branches} of them"
            )
    if len(fields["name"]) > 100:
        raise ConfigError("the address has a name that is too long; give at most 100 characters")


def _size(text: str) -> tuple[int, int]:
    sides = [int(side) if side.isascii() and side.isdigit() and len(side) < 6 else 0 for side in text.split("~")]
    if not (len(sides) in (1, 2) and all(1 <= side <= MAX_SIDE for side in sides)):
        raise ConfigError(
            f"the address has resolution={text[:40]!r}; give 1 to {MAX_SIDE} pixels, as in 224 or 512~1024"
        )
    return sides[0], sides[-1]


def _one_of(name: str, text: str, valid: tuple[str, ...]) -> str:
    if text not in valid:
        raise ConfigError(f"the address has {name}={text[:40]!r}; {suggest(text, valid)}")
    return text


# -- the session -----------------------------------------------------------------------------------------


def current() -> Draft:
    """The draft to show: as a widget has just changed it, else that of the address, else the last one of this session.

    A rerun may carry an address from before the last change. A change by a widget therefore comes first.
    """
    query = st.query_params.to_dict()
    held: Draft = st.session_state.get(HELD) or draft_of_preset(next(iter(PRESETS)))
    if st.session_state.pop(EDITED, False) or not query:
        return held
    if query == to_query(held):
        return held
    try:
        return from_query(query)
    except ConfigError as error:
        st.session_state[MESSAGE] = str(error)
        return held


def hold(draft: Draft) -> None:
    """Keep the draft in the session and write its address."""
    st.session_state[HELD] = draft
    if st.query_params.to_dict() != (query := to_query(draft)):
        st.query_params.from_dict(query)


def keep() -> None:
    """The callback of widgets that do not change the draft: the rerun keeps it, whatever its address says."""
    st.session_state[EDITED] = True


def edit(change: Callable[[Draft], Draft]) -> None:
    """Change the draft, in the callback of a widget. A change that is not possible is said in one sentence."""
    try:
        st.session_state[HELD] = change(st.session_state[HELD])
    except ConfigError as error:
        st.session_state[MESSAGE] = str(error)
    keep()


def shown(key: str, value: Any) -> str:
    """Let the widget with this key show a value, and return the key. What it shows already is left alone: setting it
    again would discard what is being typed."""
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value
    return key
