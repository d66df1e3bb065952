"""Page "Compare": two to four models beside each other: costs, where they differ, latency, accuracy, other counters."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from hrvit_lab.app import compare_charts as charts
from hrvit_lab.app import compared, compared_race, folders, processes
from hrvit_lab.app.chart_view import draw_chart
from hrvit_lab.app.compared import COSTS, MAX_MODELS, SIZES, Model
from hrvit_lab.app.navigate import OPENED
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import ConfigError
from hrvit_lab.metrics import METRICS, axis_label, format_value
from hrvit_lab.network.baselines import NetworkConfig
from hrvit_lab.study.tables import to_csv

FIRST = ("hrvit_b1", "mit_b1")
POLL_S = 2.0
EXPLAINED = ("macs", "params", "activations")
"""Columns of the ledger whose difference can be explained."""

INTRODUCTION = (
    "Choose two to four models; the first one is the reference. Costs follow at once, and a race times them here."
)
HELP_MODELS = (
    "Presets, models of timm, and the configs that you opened in *Build* or from *Explore* in this session. "
    "The order counts: all others are compared with the first."
)
NO_ACCURACY = (
    "No study here has accuracies of two of these models. Train them alike: *Run* → *A study of your own*, or choose "
    "`hrvit_nano` and `timm:resnet18`, which a shipped study compares."
)
LEGEND = (
    "Ticks: every timed call; bar: 10th to 90th percentile; point: median, with its 95 % interval. Outputs are checked "
    "first; calls are interleaved in random order. The reference runs twice in each round: the difference of the two "
    "is the A/A control, the error of the method. A difference within it is a tie."
)


def show() -> None:
    """Draw the page."""
    st.markdown(INTRODUCTION)
    offered = compared.offered(st.session_state.get(OPENED, {}))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect(
            "Models", list(offered), list(FIRST), key="models", bind="query-params", max_selections=MAX_MODELS,
            help=HELP_MODELS,
        )  # fmt: skip
        side = st.selectbox("Input side, px", SIZES, key="size", bind="query-params", width=160)
    models = _counted(chosen, offered, side)
    if len(models) < 2:
        st.info("Choose at least two models to compare.", icon=":material/compare_arrows:")
        return
    _draw_costs(models, side)
    _draw_difference(models, side)
    _draw_latency(models, side)
    _draw_accuracy(models)
    _draw_other_counts(models)


def _counted(chosen: Sequence[str], offered: dict[str, NetworkConfig], side: int) -> list[Model]:
    """The models that accept this input; the reason for each other one."""
    models = []
    for name in chosen[:MAX_MODELS]:
        try:
            models.append(_count(name, offered[name], side))
        except ConfigError as error:
            st.error(plain(error), icon=":material/error:")
    return models


@st.cache_resource(max_entries=64, show_spinner="Counting")
def _count(name: str, _config: NetworkConfig, side: int) -> Model:
    """A model with its costs. Labels are unique: those of configs have the id."""
    return compared.counted(name, _config, side)


# -- costs -----------------------------------------------------------------------------------------------------


def _draw_costs(models: Sequence[Model], side: int) -> None:
    st.subheader("Costs", anchor=False)
    rows, names = compared.cost_rows(models), [model.name for model in models]
    left, right = st.columns([3, 2], gap="large")
    with left:
        draw_chart(
            charts.ratio_chart(rows, names), "ratios", title=f"costs divided by those of {names[0]}",
            conditions=_counted_at(side), data=rows.drop(columns=["key", "text"]),
            alt="; ".join(f"{r.cost} of {r.model}: {r.text}" for r in rows.itertuples() if r.key in ("params", "macs")),
        )  # fmt: skip
    with right:
        table = pd.DataFrame({"cost": [METRICS[key].label for key in COSTS]})
        for place, model in enumerate(models):
            own = rows[rows["model"] == model.name]
            texts = own["text"].tolist()
            if place:
                ratios = [f"  × {ratio:.2f}" if ratio == ratio else "" for ratio in own["ratio"]]
                texts = [text + ratio for text, ratio in zip(texts, ratios, strict=True)]
            table[model.name] = texts
        st.dataframe(
            table, hide_index=True, width="stretch", column_config={"cost": st.column_config.Column(pinned=True)}
        )


def _counted_at(side: int) -> str:
    return f"one image of {side} × {side} px, counted in closed form or operator by operator; float32 bytes"


def _download(label: str, frame: pd.DataFrame, name: str) -> None:
    st.download_button(
        label, to_csv(frame), name, "text/csv", icon=":material/download:", on_click="ignore", key=f"download {name}"
    )


# -- where the difference comes from ---------------------------------------------------------------------------


def _draw_difference(models: Sequence[Model], side: int) -> None:
    st.subheader("Where the difference comes from", anchor=False)
    names = [model.name for model in models]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        other = st.selectbox("Compared with the reference", names[1:], key="other", bind="query-params", width=280)
        second = models[names.index(other)]
        by = st.selectbox(
            "By", compared.groupings(models[0], second), key=f"by {models[0].has_ledger, second.has_ledger}", width=180
        )
        key = st.selectbox("Cost", EXPLAINED, key="cost", bind="query-params", format_func=_cost_label, width=180)
    table = compared.ledgers(models[0], second, by, key)
    pair = (models[0].name, second.name)
    if not table["difference"].any():
        st.info(f"Both have the same {_cost_label(key)} in every group.")
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        steps = compared.waterfall(table, pair, key)
        more = table["second"].sum() - table["first"].sum()
        draw_chart(
            charts.waterfall_chart(steps, axis_label(key)), "waterfall",
            title=f"{_cost_label(key)} of {pair[0]} and of {pair[1]}, by {by}", conditions=_counted_at(side),
            data=steps.drop(columns=["text"]),
            alt=f"From {pair[0]} to {pair[1]}: {', '.join(f'{row.label} {row.text}' for row in steps.itertuples())}.",
        )  # fmt: skip
        st.caption(
            f"From the {_cost_label(key)} of {pair[0]} to those of {pair[1]}: {'+' if more >= 0 else '−'}"
            f"{_value(key, abs(float(more)))} in all. + is more, − is less."
        )
    with right:
        shown = pd.DataFrame({by: table["group"]})
        for column, name in (("first", pair[0]), ("second", pair[1])):
            shown[name] = [_value(key, value) for value in table[column]]
        shown["difference"] = [
            ("+" if value > 0 else "−" if value < 0 else "") + _value(key, abs(value)) for value in table["difference"]
        ]
        st.dataframe(shown, hide_index=True, width="stretch", height=38 * min(len(shown), 14) + 3)
        named = table.rename(columns={"group": by, "first": pair[0], "second": pair[1]})
        _download("Ledgers (CSV)", named, "ledgers.csv")


def _cost_label(key: str) -> str:
    return METRICS[key].label


def _value(key: str, value: float) -> str:
    return format_value(METRICS[key], value)


# -- latency ---------------------------------------------------------------------------------------------------


def _draw_latency(models: Sequence[Model], side: int) -> None:
    st.subheader("Latency on this machine", anchor=False)
    results = folders.results_root(sys.argv[1:])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        deploy = st.toggle("Form for inference", True, key="deploy", help="BatchNorm is folded into convolutions.")
        seconds = st.selectbox("At most, seconds", compared_race.SECONDS, key="seconds", width=160)
        pressed = st.button("Race", icon=":material/timer:", key="race", type="primary")
    if pressed:
        try:
            processes.start(results, compared_race.request(models, side, deploy, seconds, results))
        except ConfigError as error:
            st.error(plain(error), icon=":material/error:")
    process = compared_race.find_race(results, models, side, deploy)
    running = process is not None and process.running
    st.fragment(_race_panel, run_every=POLL_S if running else None)(list(models), side, deploy, results, running)


def _race_panel(models: Sequence[Model], side: int, deploy: bool, results: Path, was_running: bool) -> None:
    """The last race of these models; drawn again while it runs."""
    process = compared_race.find_race(results, models, side, deploy)
    if process is None:
        st.info(
            "These models have not raced here yet. *Race* times them in interleaved rounds, in a process of its own.",
            icon=":material/timer:",
        )
        return
    if process.running:
        st.info("The race runs: networks are built, checked, warmed up, then timed in turn.", icon=":material/timer:")
        st.button("Stop the race", icon=":material/stop_circle:", on_click=processes.stop, args=(process,))
        return
    if was_running:
        st.rerun()  # no longer polled
    laps = compared_race.read_race(process, results)
    if laps:
        _draw_laps(laps)
    if not laps or process.state not in ("finished", "failed"):
        st.warning(f"The race {processes.SAID[process.state]} before its end.", icon=":material/warning:")
    if process.state != "finished":
        with st.expander("Log", expanded=not laps, icon=":material/terminal:"):
            st.code(processes.log(process) or "There is no output.", language=None, wrap_lines=True)


def _draw_laps(laps: Sequence[compared_race.Lap]) -> None:
    names = [lap.name for lap in laps]
    summary, ratios = compared_race.summary_rows(laps), compared_race.ratio_rows(laps)
    if faults := [f"{lap.name}: {lap.fault or lap.doubts}" for lap in laps if lap.fault or lap.doubts]:
        st.warning("  \n".join(map(plain, faults)), icon=":material/warning:")
    if summary.empty:
        return
    samples, conditions = compared_race.sample_rows(laps), laps[0].conditions
    left, right = st.columns([3, 2], gap="large")
    with left:
        draw_chart(
            charts.distribution_chart(samples, summary, names), "distributions", title="latency of a batch",
            conditions=f"{conditions}\nTicks: every time; wide bars: 10th to 90th percentile; points: median, 95 %.",
            data=samples,
            alt="Latency: " + "; ".join(f"{row.model}: {row.median:.4g} ms" for row in summary.itertuples()),
        )  # fmt: skip
    with right:
        said = [
            f"**{plain(row.model)}** is {_verdict(row, names[0])}." for row in ratios.itertuples() if row.model in names
        ]
        st.markdown("  \n".join(said))
        if len(ratios):
            draw_chart(
                charts.interval_chart(ratios, "ratio", "ratio", 1), "ratios of latency",
                title=f"latency divided by that of {names[0]}", conditions=f"{conditions}\nBars: 95 % intervals.",
                data=ratios,
                alt="; ".join(f"{row.model}: {row.ratio:.3f}, {row.verdict}" for row in ratios.itertuples()),
            )  # fmt: skip
    st.caption(LEGEND)


def _verdict(row: object, reference: str) -> str:
    ratio, verdict = getattr(row, "ratio"), getattr(row, "verdict")  # noqa: B009
    if verdict == "tie":
        return f"as fast as {plain(reference)} within the error of the method (a tie, × {ratio:.2f})"
    return f"{verdict} than {plain(reference)}: × {ratio:.2f} of its latency"


# -- accuracy --------------------------------------------------------------------------------------------------


def _draw_accuracy(models: Sequence[Model]) -> None:
    st.subheader("Accuracy in studies", anchor=False)
    own = folders.find_results(folders.results_root(sys.argv[1:]))
    places = [
        *own.values(),
        *(path for name, path in folders.find_results(folders.REFERENCE).items() if name not in own),
    ]
    found = compared.accuracies(models, places)
    if not found:
        st.info(NO_ACCURACY, icon=":material/school:")
    for number, one in enumerate(found):
        with st.container(border=True):
            st.markdown(f"**{plain(one.study)}**")
            left, right = st.columns([3, 2], gap="large")
            with left:
                _draw_effects(one, number)
            with right:
                means = one.means.assign(std=["± " + f"{std:.2g}" if std == std else "–" for std in one.means["std"]])
                means = means.rename(columns={"mean": f"mean {one.score}, %", "n": "seeds"})
                st.dataframe(means.round(2), hide_index=True, width="stretch")
                _download("Accuracy (CSV)", one.means, f"accuracy-{number + 1}.csv")
            st.caption(f"Proxy: {plain(one.where)}. Networks are those of the models, with the classes of the data.")


def _draw_effects(one: compared.Accuracy, number: int) -> None:
    if one.effects.empty:
        st.caption("Results of single seeds are not kept here, so there is no paired interval.")
        return
    data = one.effects.assign(
        verdict=["differs" if p < 0.05 else "no difference shown" if p == p else "one seed" for p in one.effects["p"]]
    )
    draw_chart(
        charts.interval_chart(data, "delta", f"Δ {one.score}, points", 0), f"effects {number}",
        title=f"Δ {one.score} to {one.reference}", conditions=f"{one.where}\nPaired by seed; bars: 95 % intervals.",
        data=data, alt="; ".join(f"{row.model}: {row.delta:+.2f} points" for row in data.itertuples()),
    )  # fmt: skip
    said = [
        f"{plain(row.model)}: {row.delta:+.2f} points [{row.low:+.2f}, {row.high:+.2f}], {row.n} seeds, {row.verdict}"
        for row in data.itertuples()
    ]
    st.caption("; ".join(said) + ".")


# -- other counters --------------------------------------------------------------------------------------------


def _draw_other_counts(models: Sequence[Model]) -> None:
    st.subheader("What other counters say", anchor=False)
    if not st.toggle("Show the counts of fvcore, ptflops and torch", key="counters", bind="query-params"):
        st.caption("They miss or add operators. The predictions hold for HRViTs, and are checked against the tools.")
        return
    rows = compared.other_counts(models)
    if rows.empty:
        st.info("Predictions are for HRViTs only; none is chosen.")
        return
    st.dataframe(rows, hide_index=True, width="stretch")
    _download("Counters (CSV)", rows, "counters.csv")
