"""Page "Build": edit a config and see its costs. They are computed in closed form; no network is built."""

import pandas as pd
import streamlit as st

from hrvit_lab import plots
from hrvit_lab.app.builder import costs, edits, exports, style
from hrvit_lab.app.builder.fields import Fields
from hrvit_lab.app.builder.predicted import LATENCY, predicted
from hrvit_lab.app.builder.state import MAX_SIDE, MESSAGE, Draft, current, draft_of, edit, hold, keep, shown
from hrvit_lab.app.chart_view import draw_chart
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import ConfigError, HRViTConfig, preset, preset_names
from hrvit_lab.config.repair import Change, Fault, find_fault
from hrvit_lab.cost.count import Counts, count
from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.plots.diagram import COSTS, costs_of
from hrvit_lab.study.limits import parse_amount

LAST, SCALED = "build last", "build scaled"
"""Keys of the session's state: the last valid config and the size of its input; what became of scaling to a budget."""


def show() -> None:
    """Draw the page."""
    draft = current()
    hold(draft)
    st.html(style.rules(len(draft.fields["depths"]), draft.fields["head"] == "classifier"))
    fault = find_fault(draft.fields) or _size_fault(draft)
    counted = None if fault else _counted(draft)
    fields = Fields(draft, fault)
    _draw_start(draft)
    fields.draw_fault(lambda fault: fault.field == "resolution")
    if message := st.session_state.pop(MESSAGE, None):
        st.error(plain(message), icon=":material/error:")
    left, right = st.columns([11, 9], gap="medium")
    with right, st.container(key="side"):  # before the fields, whose widgets take most of the time
        _draw_side(draft, counted)
    with left:
        fields.draw()
        _draw_budget(draft)
    if counted:
        _draw_more(draft, *counted)


# -- what is edited ----------------------------------------------------------------------------------------


def _draw_start(draft: Draft) -> None:
    """The preset that the fields start from, the one that is compared, the input's size, and a file."""
    names = preset_names()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Start from", names, key=shown("start", draft.preset), on_change=_start, width=260,
            help="Puts the fields of a preset into the page.",
        )  # fmt: skip
        st.button(
            "Reset", icon=":material/undo:", on_click=_start, help=f"All fields as in {draft.preset}.",
            disabled=draft.fields == preset(draft.preset).model_dump(),
        )  # fmt: skip
        st.selectbox("Compare with", names, key=shown("against", draft.against), on_change=_compare, width=260)
        for place, side in enumerate(("height", "width")):
            st.number_input(
                f"Input {side}, px", 1, MAX_SIDE, None, 32, key=shown(side, draft.size[place]), on_change=_resize,
                width=120,
            )  # fmt: skip
        with st.popover("Open a file", icon=":material/upload_file:"):
            st.file_uploader(
                "A config (YAML or JSON)", type=["yaml", "yml", "json"], key="upload", on_change=_open,
                max_upload_size=1,
            )  # fmt: skip


def _start() -> None:
    edit(lambda draft: edits.start_from(draft, st.session_state["start"] or draft.preset))


def _compare() -> None:
    edit(lambda draft: draft._replace(against=st.session_state["against"] or draft.against))


def _resize() -> None:
    edit(lambda draft: draft._replace(size=(_side("height", draft.size[0]), _side("width", draft.size[1]))))


def _side(key: str, now: int) -> int:
    value = st.session_state[key]
    return now if value is None else int(value)


def _open() -> None:
    keep()
    file = st.session_state["upload"]
    if file is not None:
        edit(lambda draft: draft_of(read_upload(file.getvalue()))._replace(size=draft.size))


def read_upload(content: bytes) -> HRViTConfig:
    """The config in an uploaded file.

    Raises:
        ConfigError: in one sentence, if the file is too large, no text, no YAML, or no valid config.
    """
    try:
        return HRViTConfig.from_yaml(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8 text; upload YAML or JSON") from None


def _size_fault(draft: Draft) -> Fault | None:
    """An input that is too small for the branches."""
    try:
        HRViTConfig(**draft.fields).check_resolution(draft.size)
    except ConfigError as error:
        least = 4 * 2 ** (len(draft.fields["widths"]) - 1)
        height, width = draft.size
        enough = max(height, least), max(width, least)
        return Fault(str(error), "resolution", (), (Change("resolution", (), enough),))
    return None


# -- what it costs -----------------------------------------------------------------------------------------


def _counted(draft: Draft) -> tuple[HRViTConfig, Counts]:
    config = exports.named(HRViTConfig(**draft.fields), draft.preset)
    st.session_state[LAST] = config, draft.size
    return config, count(config, draft.size)


def _draw_side(draft: Draft, counted: tuple[HRViTConfig, Counts] | None) -> None:
    """Costs and drawing; of the last valid network, greyed, if this one is not valid."""
    with st.container(key="fresh" if counted else "stale"):
        config, counts = counted or _last(draft)
        costs.draw_costs(counts, draft.against)
        values = _spread(draft, config, counts)
        costs.draw_drawing(config, counts, *values)
        if draft.cost == LATENCY:
            _draw_latency(config, counts.resolution)
    if not counted:
        st.caption(f"Costs of the last valid network, {plain(config.name)}.")
    costs.choose_view(draft)


def _spread(draft: Draft, config: HRViTConfig, counts: Counts) -> tuple[str, pd.DataFrame]:
    """The cost to show, by stage, branch and part; MACs in place of a latency that can't be predicted."""
    if draft.cost == LATENCY:
        try:
            return LATENCY, predicted(config, counts.resolution).values
        except ConfigError:
            pass  # `_draw_latency` says why
    cost = draft.cost if draft.cost in COSTS else COSTS[0]
    return cost, costs_of(counts, cost)


def _draw_latency(config: HRViTConfig, size: tuple[int, int]) -> None:
    """The predicted latency in words, or why there is none."""
    try:
        found = predicted(config, size)
    except ConfigError as error:
        st.warning(f"No latency: {plain(str(error))}. The colours show MACs.", icon=":material/info:")
        return
    ms = METRICS[LATENCY]
    low, high = (format_value(ms, value) for value in (found.low_ms, found.high_ms))
    st.caption(
        f"Predicted latency: **{format_value(ms, found.latency_ms)}** (95 % of networks: {low} to {high}), "
        f"{plain(found.conditions)}."
    )


def _last(draft: Draft) -> tuple[HRViTConfig, Counts]:
    config, size = st.session_state.get(LAST, (preset(draft.preset), Draft._field_defaults["size"]))
    return config, count(config, size)


# -- scaling to a budget -----------------------------------------------------------------------------------


def _draw_budget(draft: Draft) -> None:
    with st.container(border=True):
        st.caption(
            "**Scale to a budget**", help="Multiplies all widths by one factor and rounds each to a valid width."
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            metric = st.selectbox(
                "Cost",
                costs.COSTS,
                key="budget metric",
                format_func=lambda key: METRICS[key].label,
                width=220,
                on_change=keep,
            )
            limit = _reference(draft, metric)
            st.text_input(
                "At most", key="budget limit", max_chars=20, width=220, on_change=keep,
                placeholder="" if limit is None else f"{format_value(METRICS[metric], limit)}, as {draft.against}",
                help="A number such as 5M or 2.8 G. Empty: the cost of the compared preset.",
            )  # fmt: skip
            st.button("Scale widths", icon=":material/straighten:", on_click=_scale)
        if (said := st.session_state.pop(SCALED, None)) is not None:
            failed, text = said
            (st.error if failed else st.success)(plain(text))


def _reference(draft: Draft, metric: str) -> float | None:
    """The compared preset's cost; None if it does not accept the input."""
    try:
        return float(getattr(count(preset(draft.against), draft.size), metric))
    except ConfigError:
        return None


def _scale() -> None:
    metric, text = st.session_state["budget metric"], st.session_state["budget limit"].strip()
    edit(lambda draft: _scaled(draft, metric, text))


def _scaled(draft: Draft, metric: str, text: str) -> Draft:
    limit = parse_amount(text) if text else _reference(draft, metric)
    if limit is None:
        st.session_state[SCALED] = True, f"{text!r} is not a number; write one such as 5M or 2.8 G"
        return draft
    try:
        scaled = edits.scale(draft, metric, limit)
    except ConfigError as error:
        st.session_state[SCALED] = True, str(error)
        return draft
    value = getattr(count(HRViTConfig(**scaled.fields), draft.size), metric)
    words = METRICS[metric]
    left = 1 - value / limit
    st.session_state[SCALED] = (
        False,
        (
            f"Widths {exports.show_value(scaled.fields['widths'])}: {format_value(words, value)} {words.label}, "
            + ("exactly the limit." if value == limit else f"{left:.2%} below the limit.")
        ),
    )
    return scaled


# -- where the costs are, what is different, what is exported ----------------------------------------------


def _draw_more(draft: Draft, config: HRViTConfig, counts: Counts) -> None:
    changed = exports.changes(preset(draft.against), config)
    since_start = exports.changes(preset(draft.preset), config)
    bars, differs, yaml, python, timm, study = st.tabs(
        ["Costs by part", f"Changes ({len(changed)})", "YAML", "Python", "timm", "Study"]
    )
    with bars:
        cost, values = _spread(draft, config, counts)
        draw_chart(
            costs.cost_chart(values, cost, draft.by), f"{cost} by {draft.by}",
            title=f"{METRICS[cost].label} of {config.name} by {draft.by}",
            conditions=costs.conditions(cost, config, counts.resolution),
            data=values.rename(columns={"value": cost}), alt=f"Bars: {METRICS[cost].label} by {draft.by}.",
        )  # fmt: skip
        svg = plots.diagram(config, counts.resolution, cost, values=values)
        st.download_button(
            "Drawing (SVG)", svg, exports.file_name(config, "svg"), "image/svg+xml", icon=":material/download:",
            on_click="ignore",
        )  # fmt: skip
    with differs:
        if changed:
            rows = [(field, *map(exports.show_value, pair)) for field, pair in changed.items()]
            table = pd.DataFrame(rows, columns=["field", draft.against, "yours"])
            st.dataframe(table, hide_index=True, width="stretch")
        else:
            st.caption(f"There is no difference to {plain(draft.against)}.")
    _draw_code(yaml, config.to_yaml(), exports.file_name(config, "yaml"))
    _draw_code(python, exports.python_code(draft.preset, since_start), None)
    _draw_code(timm, exports.timm_code(draft.preset, since_start), None)
    with study:
        st.caption("A study of costs and latency. Save it, then run `hrvit-lab study FILE`.")
    _draw_code(
        study, exports.study_yaml(config, draft.against, draft.size), f"study_{exports.file_name(config, 'yaml')}"
    )


def _draw_code(tab: st.delta_generator.DeltaGenerator, text: str, file: str | None) -> None:
    with tab:
        st.code(text, language=None)  # colours of a language's words stand out too little from a light background
        if file is not None:
            st.download_button(
                f"Download {file}", text, file, "application/yaml", icon=":material/download:", on_click="ignore"
            )
