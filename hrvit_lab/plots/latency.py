"""Latencies of a race, and throughput by batch size."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from hrvit_lab.charts import INK, MUTED, PAPER, SERIES, spread
from hrvit_lab.metrics import METRICS, axis_label, format_value, metric_label
from hrvit_lab.plots.style import MARKERS, MAX_BARS, MAX_LINES, STYLE, add_frame, empty_figure, new_figure, si
from hrvit_lab.plots.text import shorten


@matplotlib.rc_context(STYLE)
def latency_comparison(frame: pd.DataFrame) -> Figure:
    """Median latencies with their spread, the floor given by the fastest matrix product, and ratios to the reference.

    Args:
        frame: one row per measurement, from `to_frame`. Rows without a latency show their status; unreliable
            measurements are open circles. At most the first 26 rows are drawn.
    """
    shown = frame.iloc[:MAX_BARS].reset_index(drop=True)
    fig, ax = new_figure(0.6 + 0.3 * max(len(shown), 2))
    title = f"{metric_label('latency_ms')} of {'a training step' if frame['training'].any() else 'inference'}"
    timed = shown[shown["latency_ms"].notna()]
    note = f"The first {len(shown)} of {len(frame)}." if len(frame) > len(shown) else ""
    if timed.empty:
        add_frame(fig, title, note=note)
        return empty_figure(fig, ax)
    settings = shown[["height", "width", "batch_size"]].drop_duplicates()
    varying = [name for name in ("backend", "dtype") if shown[name].nunique() > 1]
    names = []
    for _, row in shown.iterrows():
        words = [shorten(row["model"], 24), *(row[name] for name in varying)]
        if len(settings) > 1:
            words.append(f"{row['height']}×{row['width']}, batch {row['batch_size']}")
        names.append(shorten(", ".join(words), 52))
    values = timed["latency_ms"].to_numpy(dtype=float)
    ax.errorbar(
        values, timed.index, xerr=spread(timed, "latency_ms"), fmt="o", ms=6.5, color=SERIES[0], ecolor=SERIES[0],
        elinewidth=1.6, label="median, 10th to 90th percentile",
    )  # fmt: skip
    if len(disturbed := timed[is_disturbed(timed)]):
        ax.plot(disturbed["latency_ms"], disturbed.index, "o", ms=4, mew=0, color=PAPER)
    floors = timed["gemm_floor_ms"].to_numpy(dtype=float)
    floor = "floor: time of the same MACs in the fastest matrix product"
    ax.plot(floors, timed.index, "|", ms=13, mew=2, color=SERIES[1], label=floor)
    p90 = timed["latency_ms_p90"].to_numpy(dtype=float)
    everything = np.concatenate([values, p90, floors[np.isfinite(floors)]])
    if everything.max() > 10 * everything.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(everything.min() / 1.3, everything.max() * 1.3)
    else:
        ax.set_xlim(0, everything.max() * 1.15)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    for where, row in shown.iterrows():
        ax.annotate(
            _latency_remark(row), (1, where), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", fontsize=8.5, color=MUTED,
        )  # fmt: skip
    ax.set_yticks(range(len(shown)), names, color=INK)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.grid(visible=True, axis="x")
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(axis_label("latency_ms"))
    first = frame.iloc[0]
    where = f"{first['height']}×{first['width']}, batch {first['batch_size']}, " if len(settings) == 1 else ""
    same = [first[name] for name in ("backend", "dtype") if name not in varying]
    threads = f"{first['threads']} thread{'s' if first['threads'] > 1 else ''}"
    caption = f"{where}{''.join(f'{word}, ' for word in same)}on {first['device']}, {threads}."
    if frame["ratio"].notna().any():
        caption += " ×: latency divided by that of the reference at the same size, median over rounds."
    if len(disturbed):
        caption += " " + DISTURBED
    add_frame(fig, title, caption, ax, note)
    return fig


@matplotlib.rc_context(STYLE)
def throughput_by_batch(frame: pd.DataFrame) -> Figure:
    """Throughput by batch size: one line per network, back end and number format, with a ring around its knee.

    Args:
        frame: one row per measurement, from `to_frame`. At most the first six lines are drawn.
    """
    from hrvit_lab.latency.compare import knee  # imported here: the figures of a study do not need torch

    timed = frame[frame["throughput_img_s"].notna()]
    fig, ax = new_figure()
    title = axis_label("throughput_img_s") + " by batch size"
    if timed.empty:
        add_frame(fig, title)
        return empty_figure(fig, ax)
    by = [name for name in ("model", "backend", "dtype", "height", "width") if timed[name].nunique() > 1] or ["model"]
    lines = list(timed.groupby(by, sort=False))
    for index, (names, group) in enumerate(lines[:MAX_LINES]):
        rows = group.sort_values("batch_size")
        sizes, rates = list(rows["batch_size"]), list(rows["throughput_img_s"])
        color = SERIES[index]
        ax.plot(
            sizes, rates, MARKERS[index], ls="-", ms=5.5, color=color, label=shorten(", ".join(map(str, names)), 40)
        )
        if len(disturbed := rows[is_disturbed(rows)]):
            ax.plot(disturbed["batch_size"], disturbed["throughput_img_s"], MARKERS[index], ms=3, mew=0, color=PAPER)
        if len(sizes) >= 3 and (batch := knee(sizes, rates)) != max(sizes):
            ax.plot(batch, rates[sizes.index(batch)], "o", ms=13, mfc="none", mec=color, mew=1.4)
    ax.set_xscale("log", base=2)
    sizes = sorted(set(timed["batch_size"]))
    ax.set_xticks(sizes, map(str, sizes))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    ax.set(xlabel="batch size", ylabel=axis_label("throughput_img_s"))
    ax.set_ylim(bottom=0)
    first = timed.iloc[0]
    same = {name: first[name] for name in ("model", "backend", "dtype") if name not in by or len(lines) == 1}
    size = [] if {"height", "width"} & set(by) else [f"{first['height']}×{first['width']}"]
    what = "training step" if first["training"] else "inference"
    setting = ", ".join([*map(str, same.values()), *size, what])
    threads = f"{first['threads']} thread{'s' if first['threads'] > 1 else ''}"
    caption = f"{setting}, on {first['device']}, {threads}. Ring: the smallest batch size with 90 % of the best "
    caption += "throughput."
    if is_disturbed(timed).any():
        caption += " " + DISTURBED
    note = f"The first {MAX_LINES} of {len(lines)}." if len(lines) > MAX_LINES else ""
    add_frame(fig, title, caption, ax, note)
    return fig


DISTURBED = "Open: unreliable measurement."


def is_disturbed(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Rows with an unreliable measurement; none if the table has no column `disturbed`."""
    if "disturbed" not in frame:
        return pd.Series(False, index=frame.index)
    return frame["disturbed"].fillna("").astype(str).ne("")


def _latency_remark(row: "pd.Series[Any]") -> str:
    """The text at a measurement: its latency and its ratio to the reference, or its status if it has no latency."""
    if pd.isna(row["latency_ms"]):
        return str(row["status"])
    time = format_value(METRICS["latency_ms"], row["latency_ms"])
    if pd.isna(row["ratio"]):
        return time
    return f"{time}, tie" if row["verdict"] == "tie" else f"{time}, {row['ratio']:.2f} ×"
