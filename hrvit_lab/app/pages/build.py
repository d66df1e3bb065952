"""Page "Build": edit a config and see its costs. They are computed in closed form; no network is built."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from hrvit_lab import plots
from hrvit_lab.app.navigate import forget_opened, opened_config
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import MAX_BRANCHES, PER_BRANCH, PRESETS, TABLES, ConfigError, HRViTConfig, diff, with_branches
from hrvit_lab.cost.count import Counts, count
from hrvit_lab.metrics import METRICS, axis_label, format_value

COSTS = tuple(key for key, metric in METRICS.items() if metric.group == "cost")
MAX_SIDE = 4096  # pixels
SWITCHES = {
    "parallel_conv": "Convolution beside attention",
    "attn_activation": "Hardswish before attention's output",
    "attn_batch_norm": "BatchNorm after attention",
    "branch_norm": "LayerNorm at the end of a branch",
}
CHARTED = ("macs", "params", "activations")


def show() -> None:
    """Draw the page."""
    st.title("Build a variant")
    st.markdown("Start from a preset and change its fields. The costs are computed in closed form and update at once.")
    left, right = st.columns([2, 3], gap="large")
    with left:
        start, compared = _start()
        notes: dict[str, Any] = {}
        values, resolution = _fields(start, notes)
    try:
        config = start.replace(**parse(values))
        counts = count(config, resolution)
    except ConfigError as error:
        _show_error(str(error), notes)
        right.info(f"Costs are shown again when this is corrected: {plain(str(error))}", icon=":material/edit:")
        return
    with right:
        _draw_costs(config, counts, compared)
        _draw_chart(config, counts)
        _draw_exports(config, compared)


# -- what is edited ----------------------------------------------------------------------------------------


def _start() -> tuple[HRViTConfig, HRViTConfig]:
    """The config that the fields begin with, and the preset that it is compared with."""
    with st.container(border=True):
        name = st.selectbox("Preset", list(PRESETS), key="preset", on_change=forget_opened)
        preset = PRESETS[name]
        upload = st.file_uploader("Or upload a config (YAML)", type=["yaml", "yml", "json"], key="upload")
        start = preset
        if upload is None and (opened := opened_config()) is not None:
            start = opened
            st.caption(f"The fields show {plain(start.name or start.id)}, opened from another page.")
            st.button("Back to the preset", icon=":material/undo:", on_click=forget_opened)
        if upload is not None:
            try:
                start = read_upload(upload.getvalue())
                st.caption("The fields show the uploaded file. Remove it to edit the preset.")
            except ConfigError as error:
                st.error(plain(error))
        branches = st.slider(
            "Branches", 1, MAX_BRANCHES, start.num_branches, key=f"branches of {start.id}",
            help="Fewer branches: the coarsest ones are removed. More: coarser ones are added in the last stage.",
        )  # fmt: skip
    return with_branches(start, branches), preset


def read_upload(content: bytes) -> HRViTConfig:
    """The config in an uploaded file.

    Raises:
        ConfigError: in one sentence, if the file is too large, no text, no YAML, or no valid config.
    """
    try:
        return HRViTConfig.from_yaml(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8 text; upload YAML or JSON") from None


def _fields(start: HRViTConfig, notes: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, int]]:
    """Every field as a widget with the value in `start`; `notes[field]` is the place for its error."""
    values: dict[str, Any] = {}

    def field(name: str, draw: Callable[..., Any], label: str, *args: Any, **options: Any) -> None:
        # A new start is a new key: the widget then begins at the new value, not at what was typed before.
        values[name] = draw(label, *args, key=f"{name} of {start.id}", **options)
        notes[name] = st.empty()

    def per_branch(name: str, label: str, help: str) -> None:
        field(name, st.text_input, label, _join(getattr(start, name)), help=help)

    with st.container(border=True):
        topologies = [start.topology, "pyramid" if start.topology == "parallel" else "parallel"]
        field(
            "topology", st.selectbox, "Topology", topologies,
            help="parallel: branches run side by side. pyramid: one scale after another; the depths then have one "
            "line, and the stem is as wide as the first scale.",
        )  # fmt: skip
        depths = "\n".join(_join(stage) for stage in start.depths)
        field(
            "depths", st.text_area, "Depths", depths, height=190,
            help="Number of blocks: one line per stage, one number per branch. A branch continues in all later stages.",
        )  # fmt: skip
        per_branch("widths", "Widths", "Channels per branch, finest first.")
        per_branch("head_dims", "Head dims", "Channels per attention head, per branch.")
        per_branch(
            "window_sizes",
            "Windows",
            "Size in tokens, per branch: stripe width, side of a window, or side of a merged patch.",
        )
        per_branch("mlp_ratios", "FFN ratios", "Hidden width divided by the width of the branch, per branch.")
    with st.container(border=True):
        height, width = st.columns(2)
        resolution = (
            height.number_input("Input height, px", 1, MAX_SIDE, 224, 32, key="height"),
            width.number_input("Input width, px", 1, MAX_SIDE, 224, 32, key="width"),
        )
        notes["resolution"] = st.empty()
        field("num_classes", st.number_input, "Classes", 0, 100_000, start.num_classes)
    with st.expander("Variants of the parts"):
        for name in TABLES:
            field(
                name,
                st.selectbox,
                name.replace("_", " ").capitalize(),
                _choices(start, name),
                format_func=_choice_text,
                help=_one_a_branch(start, name) if name in PER_BRANCH else None,
            )
        interpolations = [start.upsample, "bilinear" if start.upsample == "nearest" else "nearest"]
        field("upsample", st.selectbox, "Upsampling in fusions", interpolations)
        for name, label in SWITCHES.items():
            field(name, st.toggle, label, getattr(start, name))
    with st.expander("Stem, head and regularisation"):
        field("stem_width", st.number_input, "Stem width", 1, 1024, start.stem_width)
        field("in_chans", st.number_input, "Input channels", 1, 64, start.in_chans)
        per_branch("head_widths", "Head widths", "Inner width of the head's bottleneck, per branch.")
        field("head_features", st.number_input, "Head features", 1, 16384, start.head_features)
        field("segformer_width", st.number_input, "SegFormer head's width", 1, 4096, start.segformer_width)
        field("upernet_width", st.number_input, "UperNet head's width", 1, 4096, start.upernet_width)
        for name in ("drop_rate", "proj_drop_rate", "drop_path_rate"):
            field(
                name,
                st.number_input,
                name.replace("_", " ").capitalize(),
                0.0,
                1.0,
                getattr(start, name),
                0.05,
                format="%g",
            )
        field("grad_checkpointing", st.toggle, "Gradient checkpointing", start.grad_checkpointing)
    return values, resolution


def _choices(start: HRViTConfig, name: str) -> list[Any]:
    """The names that a field accepts, the present value first; a list of different names per branch is one option."""
    now = getattr(start, name)
    if isinstance(now, tuple) and len(set(now)) == 1:
        now = now[0]
    return [now, *(choice for choice in TABLES[name] if choice != now)]


def _one_a_branch(start: HRViTConfig, name: str) -> str:
    """How to choose a different name for each branch, for which the field has no option."""
    now, *others = dict.fromkeys((getattr(start, name)[0], *TABLES[name]))
    mixed = ", ".join([others[0], *[now] * (start.num_branches - 1)])
    return (
        "The same for every branch. For different ones, download the YAML, write a list with one name per branch "
        f"(finest first), such as `{name}: [{mixed}]`, and upload the file. The list is then an option here."
    )


def _choice_text(choice: Any) -> str:
    return choice if isinstance(choice, str) else _join(choice)


def _join(values: tuple[Any, ...]) -> str:
    return ", ".join(_exact(value) if isinstance(value, float) else str(value) for value in values)


def _exact(value: float) -> str:
    """The shortest text that reads back as the same number.

    >>> _exact(4.0), _exact(7 / 3)
    ('4', '2.3333333333333335')
    """
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def parse(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the text of number fields; other values are returned as they are.

    >>> parse({"depths": "1\\n1, 2", "widths": "32 64", "num_classes": 10})
    {'depths': [[1], [1, 2]], 'widths': [32, 64], 'num_classes': 10}

    Raises:
        ConfigError: with the name of the field, if its text is not a list of numbers.
    """
    return {name: _parse(name, value) if name in _NUMBERS else value for name, value in values.items()}


_NUMBERS: Mapping[str, Callable[[str], float]] = {
    "depths": int, "widths": int, "head_dims": int, "window_sizes": int, "head_widths": int, "mlp_ratios": float,
}  # fmt: skip


def _parse(name: str, text: str) -> Any:
    if name == "depths":
        return [_numbers(name, line) for line in text.splitlines() if line.strip()]
    numbers = _numbers(name, text)
    return numbers[0] if len(numbers) == 1 else numbers


def _numbers(name: str, line: str) -> list[float]:
    parts = re.split(r"[\s,;]+", line.strip(" ,;\t"))
    try:
        return [_NUMBERS[name](part) for part in parts]
    except ValueError:
        kind = "whole numbers" if _NUMBERS[name] is int else "numbers"
        raise ConfigError(
            f"{name} = {line[:40]!r} is not a list of numbers; write {kind} separated by commas"
        ) from None


def _show_error(message: str, notes: Mapping[str, Any]) -> None:
    """One sentence below the field that it names."""
    name = re.match(r"\w*", message)
    place = notes.get(name.group()) if name else None
    (place or st).error(plain(message), icon=":material/error:")


# -- what it costs -----------------------------------------------------------------------------------------


def _draw_costs(config: HRViTConfig, counts: Counts, compared: HRViTConfig) -> None:
    try:
        reference = count(compared, counts.resolution)
    except ConfigError:
        reference = None  # the preset does not accept this resolution
    cells = [cell for _ in range(0, len(COSTS), 3) for cell in st.columns(3)]
    for cell, key in zip(cells, COSTS, strict=False):
        value = getattr(counts, key)
        change = value / getattr(reference, key) - 1 if reference else 0
        cell.metric(
            _heading(METRICS[key].label), format_value(METRICS[key], value),
            f"{change:+.1%}" if abs(change) >= 0.0005 else None,
            delta_color="inverse", help=METRICS[key].doc, border=True,
        )  # fmt: skip
    height, width = counts.resolution
    st.caption(
        f"Costs of one image of {height} × {width} px. Percentages are changes against {plain(compared.name)}. "
        f"Config id `{config.id}`."
    )


def _draw_chart(config: HRViTConfig, counts: Counts) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        key = st.segmented_control(
            "Cost",
            CHARTED,
            default="macs",
            format_func=lambda key: METRICS[key].label,
            key="cost",
            required=True,
        )
        by = st.segmented_control("Bars", ("stage", "branch"), default="stage", key="by", required=True)
    drawing = plots.diagram(config, counts.resolution, key or "macs")
    st.image(drawing, width="stretch", alt=f"Branches and stages, coloured by share of {METRICS[key or 'macs'].label}.")
    st.altair_chart(cost_chart(counts, key or "macs", by or "stage"), width="stretch")
    st.download_button(
        "Diagram (SVG)", drawing, f"{config.name or config.id}.svg", "image/svg+xml",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip


def cost_chart(counts: Counts, key: str, by: str) -> alt.Chart:
    """A cost by part, stacked: one bar per stage or branch."""
    rows = counts.frame().groupby([by, "part"], sort=False)[key].sum().reset_index()
    rows = rows[rows[key] > 0]
    colors = plots.part_colors(rows["part"])
    bars = [f"{by} {place}" if isinstance(place, int) else str(place) for place in rows[by]]
    data = pd.DataFrame(
        {
            "bar": bars,
            "part": rows["part"].map(plots.part_label),
            "order": rows["part"].map(list(colors).index),
            "value": rows[key],
            "text": [format_value(METRICS[key], value) for value in rows[key]],
            "share": rows[key] / rows[key].sum(),
        }
    )
    color = alt.Color(
        "part:N", title=None, legend=alt.Legend(orient="bottom", columns=5),
        scale=alt.Scale(domain=list(map(plots.part_label, colors)), range=list(colors.values())),
    )  # fmt: skip
    tooltip = [
        alt.Tooltip("bar:N", title=by),
        alt.Tooltip("part:N"),
        alt.Tooltip("text:N", title=METRICS[key].label),
        alt.Tooltip("share:Q", format=".1%", title="share of the total"),
    ]
    ticks = alt.Axis(tickCount=6, labelExpr="datum.value == 0 ? '0' : format(datum.value, '~s')")
    return (
        alt.Chart(data, height=120 + 34 * len(set(bars)))
        .mark_bar(height={"band": 0.72})
        .encode(
            alt.X("value:Q", title=axis_label(key), axis=ticks),
            alt.Y("bar:N", sort=None, title=None),
            color=color,
            order=alt.Order("order:Q"),
            tooltip=tooltip,
        )
    )


def _heading(label: str) -> str:
    return label[:1].upper() + label[1:]


# -- what is exported ------------------------------------------------------------------------------------


def _draw_exports(config: HRViTConfig, compared: HRViTConfig) -> None:
    changes = {field: pair for field, pair in diff(compared, config).items() if field != "name"}
    named = config.replace(name=compared.name if not changes else f"{compared.name}-{config.id}")
    changed, python, yaml = st.tabs(["Changes", "Python", "YAML"])
    with changed:
        if changes:
            rows = [(field, show_value(before), show_value(after)) for field, (before, after) in changes.items()]
            st.dataframe(
                pd.DataFrame(rows, columns=["field", compared.name, "yours"]),
                hide_index=True,
                width="stretch",
            )
        else:
            st.caption(f"Nothing is changed yet: this is {compared.name}.")
    python.code(snippet(compared.name, changes), language="python")
    with yaml:
        st.code(named.to_yaml(), language="yaml", height=300)
        st.download_button(
            "Download YAML", named.to_yaml(), f"{named.name}.yaml", "application/yaml",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip


def snippet(preset: str, changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Python that creates the network."""
    arguments = [repr(preset), *(f"{field}={after!r}" for field, (_, after) in changes.items())]
    line = f"model = create_model({', '.join(arguments)})"
    if len(line) > 80:
        line = "model = create_model(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"
    return f"from hrvit_lab import create_model\n\n{line}\n"


def show_value(value: Any) -> str:
    """A field of a config for reading: lists without brackets, stages separated by bars."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return " | ".join(_join(stage) for stage in value)
    return _join(value) if isinstance(value, tuple) else str(value)
