"""The study's tables for a terminal; labels and units come from ``METRICS`` alone."""

from collections.abc import Mapping, Sequence

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from hrvit_lab.measure import METRICS, format_value
from hrvit_lab.plots import metric_label
from hrvit_lab.study.axes import STARTS
from hrvit_lab.study.columns import AGREES, NOT_BUILT, cell, comparisons
from hrvit_lab.study.space import show_size
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.trials import Trial

NAME_WIDTH = 28
"""Columns up to which a variant's name is kept in one line; other columns' heads wrap first."""


def result_table(spec: Spec, frame: pd.DataFrame) -> Table:
    """One line a variant: figures with their spread, what they are compared with, a star on the trade-off front."""
    rows = [{str(column): value for column, value in record.items()} for record in frame.to_dict("records")]
    compared = comparisons(spec, frame)
    beside = {column.beside: column.texts for column in compared}
    table = _table(spec.title)
    longest_word = max(len(word) for row in rows for word in str(row["variant"]).split())
    longest_name = max(len(str(row["variant"])) for row in rows)
    table.add_column("variant", min_width=max(longest_word, min(longest_name, NAME_WIDTH)))
    columns = [[f"{row['variant']} ★" if row["pareto"] else str(row["variant"]) for row in rows]]
    if "macs_vs_base" in frame:
        table.add_column("MACs vs base", justify="right")
        columns.append([f"{row['macs_vs_base']:.0%}" for row in rows])
    for key in spec.metrics:
        texts = [cell(key, row) for row in rows]
        if key in beside:
            texts = [
                f"{text} {other.removeprefix('–')}".rstrip() for text, other in zip(texts, beside[key], strict=True)
            ]
        label = metric_label(key, spec.data.name)
        table.add_column(label, justify="right", width=_width(label, texts) if key in beside else None)
        columns.append(texts)
    for column in compared:
        if column.beside not in spec.metrics:
            table.add_column(column.title, justify="right", width=_width(column.title, column.texts))
            columns.append(column.texts)
    if not frame["status"].isin(["ok", NOT_BUILT]).all():
        table.add_column("status", overflow="fold")
        columns.append([row["status"] for row in rows])
    for row, cells in zip(rows, zip(*columns, strict=True), strict=True):
        failed = row["status"] not in ("ok", NOT_BUILT)
        table.add_row(*map(Text, cells[:-1]), Text(cells[-1], style="red" if failed else ""))
    table.caption = Text(_caption(spec, frame), style="dim")
    return table


def _width(title: str, texts: Sequence[str]) -> int:
    """Room for the figures and the title's longest word: a title wraps between words, a figure not at all."""
    return max(map(len, (*title.split(), *texts)))


def plan_table(
    spec: Spec, planned: Mapping[str, Sequence[Trial]], costs: Mapping[str, tuple[float, float]], present: set[str]
) -> Table:
    """What would run: each variant's costs, and how many of its trials are on disk already."""
    table = _table(spec.title)
    table.add_column("variant", overflow="fold")
    for name in ("params", "macs"):
        table.add_column(METRICS[name].label, justify="right")
    table.add_column("trials", justify="right")
    table.add_column("already there", justify="right")
    for name, trials in planned.items():
        params, macs = costs[name]
        here = sum(trial.key in present for trial in trials)
        figures = format_value(METRICS["params"], params), format_value(METRICS["macs"], macs)
        table.add_row(Text(name), *figures, str(len(trials)), str(here))
    table.caption = f"Costs at {show_size(spec.resolution)}. Networks that are equal are measured once."
    return table


def costed(spec: Spec) -> str:
    """The network whose costs stand in the table, where it is not the one that is trained."""
    return ", ".join(str(value) if key in STARTS else f"{key} {value}" for key, value in (spec.cost_base or {}).items())


def _table(title: str) -> Table:
    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def _caption(spec: Spec, frame: pd.DataFrame) -> str:
    groups = {METRICS[key].group for key in spec.metrics}
    parts = []
    if "cost" in groups:
        sizes = list(dict.fromkeys(spec.resolution_of(str(name)) for name in frame["variant"]))
        parts.append(
            f"Costs at {' and '.join(map(show_size, sizes))}{f' of {costed(spec)}' if spec.cost_base else ''}."
        )
    if "accuracy" in groups:
        training = f"{spec.train.epochs} epoch{'s' * (spec.train.epochs > 1)} on {spec.data.name}"
        seeds = f"mean ± standard deviation over {len(spec.seeds)} seeds" if len(spec.seeds) > 1 else "one seed"
        parts.append(f"Accuracy is a proxy: {training} at {show_size(spec.data.resolution)}, {seeds}.")
    if "latency" in groups:
        parts.append(
            f"Latency: {spec.device}, batch {spec.latency.batch_size}, {spec.latency.dtype}, {sizes}, "
            "median (10th to 90th percentile)."
        )
    if frame["pareto"].any():
        x, y = (metric_label(key, spec.data.name) for key in spec.axes_of_tradeoff)
        parts.append(f"★: no other variant is better in {x} or {y} without being worse in the other.")
    if spec.compare_to is not None:
        parts.append(
            f"Δ: against {spec.compare_to!r}; accuracy in points, paired by seed, ± standard error of the mean."
        )
    if any(str(name).endswith("_agrees") for name in frame):
        parts.append(f"Beside ours: {AGREES}, where it rounds to the published figure, else how far it is off.")
    if (frame["status"] == NOT_BUILT).any():
        parts.append(f"Networks without figures of ours are {NOT_BUILT}.")
    return " ".join(parts)
