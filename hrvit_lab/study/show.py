"""The study's tables for a terminal; labels and units come from ``METRICS`` alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from hrvit_lab.measure import METRICS, format_value
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.trials import Trial


def result_table(spec: Spec, frame: pd.DataFrame) -> Table:
    """One line a variant: figures with their spread, a star on the trade-off front."""
    table = _table(spec.title)
    table.add_column("variant", min_width=max(len(word) for name in frame["variant"] for word in str(name).split()))
    if matched := "macs_vs_base" in frame:
        table.add_column("MACs vs base", justify="right")
    for key in spec.metrics:
        table.add_column(metric_label(key, spec.data.name), justify="right")
    if failed := bool((frame["status"] != "ok").any()):
        table.add_column("status", overflow="fold")
    for row in ({str(column): value for column, value in record.items()} for record in frame.to_dict("records")):
        cells = [Text(f"{row['variant']} ★" if row["pareto"] else str(row["variant"]))]
        cells += [Text(f"{row['macs_vs_base']:.0%}")] if matched else []
        cells += [Text(_cell(key, row)) for key in spec.metrics]
        cells += [Text(row["status"], style="" if row["status"] == "ok" else "red")] if failed else []
        table.add_row(*cells)
    table.caption = Text(_caption(spec, frame), style="dim")
    return table


def plan_table(
    spec: Spec, planned: Mapping[str, Sequence[Trial]], costs: Mapping[str, tuple[int, int]], present: set[str]
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
    table.caption = f"Costs at {_size(spec.resolution)}. Networks that are equal are measured once."
    return table


def metric_label(key: str, dataset: str) -> str:
    """``top-1 on digits (proxy)``: what was trained stands beside what was reached."""
    label = METRICS[key].label
    return label.replace("(proxy)", f"on {dataset} (proxy)") if METRICS[key].group == "accuracy" else label


def _table(title: str) -> Table:
    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def _cell(key: str, row: Mapping[str, Any]) -> str:
    metric, value = METRICS[key], row.get(key, math.nan)
    text = format_value(metric, value, row.get(f"{key}_std"))
    if f"{key}_p10" in row and not math.isnan(value):
        low, high = (
            format_value(metric, row[f"{key}_{end}"]).removesuffix(f" {metric.unit}") for end in ("p10", "p90")
        )
        text += f" ({low}–{high})"
    return text


def _caption(spec: Spec, frame: pd.DataFrame) -> str:
    groups = {METRICS[key].group for key in spec.metrics}
    parts = [f"Costs at {_size(spec.resolution)}."] if "cost" in groups else []
    if "accuracy" in groups:
        training = f"{spec.train.epochs} epoch{'s' * (spec.train.epochs > 1)} on {spec.data.name}"
        seeds = f"mean ± standard deviation over {len(spec.seeds)} seeds" if len(spec.seeds) > 1 else "one seed"
        parts.append(f"Accuracy is a proxy: {training} at {_size(spec.data.resolution)}, {seeds}.")
    if "latency" in groups:
        parts.append(
            f"Latency: {spec.device}, batch {spec.latency.batch_size}, {spec.latency.dtype}, {_size(spec.resolution)}, "
            "median (10th to 90th percentile)."
        )
    if frame["pareto"].any():
        x, y = (metric_label(key, spec.data.name) for key in spec.axes_of_tradeoff)
        parts.append(f"★: no other variant is better in {x} or {y} without being worse in the other.")
    return " ".join(parts)


def _size(resolution: tuple[int, int]) -> str:
    return f"{resolution[0]}×{resolution[1]}"
