"""Figures of studies: pure functions from tables to `matplotlib.figure.Figure`.

Labels and units come from `METRICS` alone. Nothing here touches pyplot: a figure belongs to its caller. All colours
are in `COLORS`, so that a page which inlines the SVG can exchange each for its own (dark mode).
"""

import io
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hrvit_lab.measure import METRICS, format_value
from hrvit_lab.measure.compare import knee
from hrvit_lab.measure.metric import si_scale

# Series colours: Okabe and Ito's set (safe for the common colour blindnesses), ordered for contrast between neighbours.
COLORS: Mapping[str, str] = {
    "ink": "#1b1f24",
    "muted": "#667080",
    "grid": "#e6e9ee",
    "paper": "#ffffff",
    "series-1": "#0072b2",
    "series-2": "#d55e00",
    "series-3": "#009e73",
    "series-4": "#cc79a7",
    "series-5": "#e69f00",
    "series-6": "#56b4e9",
    "series-7": "#7a6a53",
    "series-8": "#8a94a3",
    "series-9": "#b3a1d6",
    "series-10": "#8f9a3c",
}
INK, MUTED, GRID, PAPER = (COLORS[name] for name in ("ink", "muted", "grid", "paper"))
SERIES = tuple(color for name, color in COLORS.items() if name.startswith("series"))
# The network's parts keep their colours in every figure, whichever of them are there.
PARTS = (
    "attention projection",
    "attention products",
    "parallel convolution",
    "des",
    "ffn",
    "patch embedding",
    "fusion",
    "stem",
    "head",
    "norm",
)
# The clock's parts are coarser: those that no ledger has take the colours of what they are mostly made of.
TIMED_AS = {"attention": "attention products", "shortcut": "des", "residual": "parallel convolution"}
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h")

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # bundled with matplotlib: the layout is the same on every machine
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a `$` in a variant's name is a dollar sign
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "ytick.left": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "svg.fonttype": "none",  # text stays text: searchable, and in the reader's colours
    "svg.hashsalt": "hrvit_lab",  # equal figures are equal files
}
WIDTH = 7.4  # inches; 1480 px at 200 dpi
LEFT = 0.014  # of the width: where titles and notes begin
PROXY = " (proxy)"  # how the labels of `METRICS` mark accuracy on a small data set
MAX_LABELLED, MAX_LINES, MAX_PANELS, MAX_BARS = 30, 6, 12, 26


def metric_label(key: str, dataset: str | None = None) -> str:
    """The metric's label without its unit; a proxy says on which data set.

    >>> metric_label("top1", "digits")
    'top-1 on digits (proxy)'
    """
    label = METRICS[key].label
    return label.replace(PROXY, f" on {dataset}{PROXY}") if dataset else label


def axis_label(key: str, dataset: str | None = None) -> str:
    """The metric's label and unit, as on an axis.

    >>> axis_label("top1", "digits"), axis_label("latency_ms")
    ('top-1 on digits (proxy), %', 'latency, ms')
    """
    unit = METRICS[key].unit
    return metric_label(key, dataset) + (f", {unit}" if unit else "")


def part_label(part: str) -> str:
    """A part of the network as a reader knows it: acronyms in capitals."""
    return part.upper() if part in ("des", "ffn") else part.replace("_", " ")


def part_colors(parts: Iterable[str]) -> dict[str, str]:
    """A colour for every part, in the order to stack them; parts that nobody gave a colour are grey."""
    known = dict(zip(PARTS, SERIES, strict=True))

    def place(part: str) -> int:
        listed = TIMED_AS.get(part, part)
        return PARTS.index(listed) if listed in known else len(PARTS)

    return {part: known.get(TIMED_AS.get(part, part), MUTED) for part in sorted(dict.fromkeys(parts), key=place)}


def si(value: float) -> str:
    """A tick's text: counts from a thousand up with an SI prefix, all digits that tell ticks apart.

    >>> si(2_500_000), si(12.5)
    ('2.5 M', '12.5')
    """
    scale, prefix = si_scale(value)
    return f"{value / scale:.6g} {prefix}".rstrip()


def shorten(name: object, width: int = 30) -> str:
    """One line of at most `width` characters, cut in the middle: both ends of a name tell variants apart."""
    text = " ".join(str(name).split())
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def spread(table: pd.DataFrame, key: str) -> NDArray[np.float64]:
    """Distances from the value down and up to the ends of its spread, (2, rows); 0 where none was measured.

    The spread is one standard deviation over seeds (`<key>_std`), else the 10th and 90th percentiles.
    """
    if f"{key}_std" in table:
        down = up = table[f"{key}_std"]
    elif f"{key}_p10" in table and f"{key}_p90" in table:
        down, up = table[key] - table[f"{key}_p10"], table[f"{key}_p90"] - table[key]
    else:
        return np.zeros((2, len(table)))
    return np.nan_to_num(np.stack([down, up]).astype(float)).clip(min=0)


STUDENT_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Half width of a mean's 95 % interval in standard errors, for 1 to 9 degrees of freedom; beyond, a little too wide."""


def half_width_95(table: pd.DataFrame, key: str) -> NDArray[np.float64]:
    """Half the 95 % interval of each mean paired difference, (rows,); NaN where one seed is all there is.

    Args:
        table: with `<key>_delta_se` and `<key>_delta_n`.
    """
    freedom = np.nan_to_num(table[f"{key}_delta_n"].to_numpy(dtype=float)).astype(int) - 1
    factors = np.asarray(STUDENT_T)[freedom.clip(1, len(STUDENT_T)) - 1]
    return factors * table[f"{key}_delta_se"].to_numpy(dtype=float)


def pareto_front(table: pd.DataFrame, x: str, y: str) -> NDArray[np.bool_]:
    """Which rows no other row beats in one of two metrics while equal or better in the other, (rows,).

    Rows without both values are never on the front.
    """
    signs = [1 if METRICS[key].better == "higher" else -1 for key in (x, y)]
    values = table[[x, y]].to_numpy(dtype=float) * signs
    complete = np.isfinite(values).all(-1)
    values[~complete] = -np.inf
    at_least = (values[:, None] >= values[None]).all(-1)  # [i, j]: i is at least as good as j in both
    beaten = (at_least & ~at_least.T).any(0)
    return np.logical_and(complete, ~beaten)


@matplotlib.rc_context(STYLE)
def tradeoff(
    table: pd.DataFrame, x: str = "macs", y: str = "top1", label: str = "variant", dataset: str | None = None
) -> Figure:
    """Two metrics against each other, one point a variant, with spreads and the Pareto front of the means.

    Args:
        table: one row a variant, as the study's `table.csv`; rows without both values are left out and counted.
        x, y: keys of `METRICS`; x is logarithmic where it spans more than a factor of ten.
        label: the column that names the points; with many points, only those on the front are named.
        dataset: the data set that accuracy was measured on.
    """
    rows = table[np.isfinite(table[[x, y]].to_numpy(dtype=float)).all(axis=1)].reset_index(drop=True)
    fig, ax = _figure()
    title = f"{metric_label(y, dataset)} against {METRICS[x].label}"
    note = _missing(len(table) - len(rows), len(table), (x, y), dataset)
    if rows.empty:
        _frame(fig, title, note=note)
        return _empty(fig, ax)

    ax.set(xlabel=axis_label(x, dataset), ylabel=axis_label(y, dataset))
    _metric_axis(ax, "x", rows[x])
    _metric_axis(ax, "y", rows[y])
    front = pareto_front(rows, x, y)
    x_error, y_error = spread(rows, x), spread(rows, y)
    size = 6.5 if len(rows) <= 60 else 4.5  # points
    for index, (name, group) in enumerate(_groups(rows)):
        color, marker, where = (
            SERIES[index % len(SERIES)],
            MARKERS[index % len(MARKERS)],
            group.index.to_numpy(),
        )
        ax.errorbar(
            group[x], group[y], xerr=x_error[:, where], yerr=y_error[:, where], fmt="none", ecolor=color, alpha=0.45,
            elinewidth=1.2, zorder=2,
        )  # fmt: skip
        for on_front, fill in ((False, PAPER), (True, color)):
            points = group[front[where] == on_front]
            ax.plot(
                points[x],
                points[y],
                marker,
                ms=size,
                mfc=fill,
                mec=color,
                mew=1.4,
                zorder=4 if on_front else 3,
            )
        if name is not None:
            ax.plot([], [], marker, ms=size, color=color, label=shorten(name))
    best = rows[front].sort_values(x)
    step = ax.step(best[x], best[y], where="post" if METRICS[x].better == "lower" else "pre", color=INK, lw=1, zorder=1)
    step[0].set_alpha(0.55)
    ax.margins(0.09, 0.12)
    _frame(fig, title, _tradeoff_caption(rows, x, y), ax, note)

    order = np.argsort(~front, kind="stable")[: len(rows) if len(rows) <= MAX_LABELLED else int(front.sum())]
    first: dict[tuple[str, float, float], int] = {}
    for i in order:  # a network that stands twice, as it is and matched, is named once
        first.setdefault((_point_name(rows.loc[i], label), rows[x][i], rows[y][i]), int(i))
    _place_labels(ax, rows, x, y, [(i, name) for (name, *_), i in first.items()], best)
    return fig


@matplotlib.rc_context(STYLE)
def axis_curve(
    table: pd.DataFrame, axis: str, y: str, others: Sequence[str] = (), dataset: str | None = None
) -> Figure:
    """A metric along one axis of a study: mean lines with their spread as a band.

    Args:
        table: as for `tradeoff`.
        axis: the column along x; numbers are placed to scale, anything else in order of appearance.
        y: key of `METRICS`.
        others: the study's other axes: a line joins variants that differ in `axis` alone. More than six lines are
            drawn thin, with their mean in bold.
        dataset: the data set that accuracy was measured on.
    """
    rows = table[np.isfinite(table[y].to_numpy(dtype=float)) & table[axis].notna().to_numpy()].reset_index(drop=True)
    fig, ax = _figure()
    title = f"{metric_label(y, dataset)} along {axis.replace('_', ' ')}"
    note = _missing(int(table[axis].notna().sum()) - len(rows), int(table[axis].notna().sum()), (y,), dataset)
    if rows.empty:
        _frame(fig, title, note=note)
        return _empty(fig, ax)

    ax.set(xlabel=axis.replace("_", " "), ylabel=axis_label(y, dataset))
    position = _axis_positions(ax, rows[axis])
    error = spread(rows, y)
    by = [column for column in dict.fromkeys((*others, "matching")) if column in rows and column != axis]
    lines = (
        [(name, part.index.to_numpy()) for name, part in rows.groupby(by, dropna=False, sort=False)]
        if by
        else [((), rows.index.to_numpy())]
    )
    longest = max(len(where) for _, where in lines)
    lines = [
        (name, where[np.argsort(position[where], kind="stable")])
        for name, where in lines
        if len(where) > 1 or longest == 1
    ]
    varying = [index for index, _ in enumerate(by) if len({str(name[index]) for name, _ in lines}) > 1]
    crowded = len(lines) > MAX_LINES
    values = rows[y].to_numpy(dtype=float)
    for index, (name, where) in enumerate(lines):
        color, marker = (MUTED, "") if crowded else (SERIES[index], MARKERS[index])
        text = ", ".join(
            shorten(name[i]) if by[i] == "matching" else f"{by[i].replace('_', ' ')} {shorten(name[i])}"
            for i in varying
        )
        xs, ys = position[where], values[where]
        if not crowded:
            ax.fill_between(xs, ys - error[0, where], ys + error[1, where], color=color, alpha=0.15, lw=0)
        ax.plot(
            xs,
            ys,
            marker=marker,
            ms=5.5,
            color=color,
            lw=0.8 if crowded else 1.8,
            alpha=0.4 if crowded else 1,
            label=text or "_",
        )
    if crowded:
        mean = pd.Series(values).groupby(position).mean()
        ax.plot(mean.index, mean, marker="o", ms=5.5, color=SERIES[0], lw=2.2)
    caption = (
        f"Thin: {len(lines)} settings of the other axes; bold: their mean." if crowded else _spread_caption(rows, y)
    )
    _frame(fig, title, caption, None if crowded else ax, note)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    ax.margins(0.05 if pd.api.types.is_numeric_dtype(rows[axis]) else 0.15, 0.12)
    return fig


@matplotlib.rc_context(STYLE)
def training_curves(curves: pd.DataFrame, metric: str = "top1", dataset: str | None = None) -> Figure:
    """Small multiples of training, one panel a variant: seeds faint, their mean bold, other variants in grey behind.

    Args:
        curves: columns `variant, seed, epoch, train_<metric>, val_<metric>`; at most twelve variants get a panel.
        metric: "top1" or "loss".
        dataset: the data set trained on.
    """
    val, train = f"val_{metric}", f"train_{metric}"
    title = f"Validation {axis_label('top1', dataset)}" if metric == "top1" else "Validation loss, nats"
    curves = curves.dropna(subset=[val])
    variants = list(dict.fromkeys(curves["variant"]))
    shown = variants[:MAX_PANELS]
    if not shown:
        fig, ax = _figure()
        _frame(fig, title)
        return _empty(fig, ax)
    means = curves.groupby(["variant", "epoch"], sort=False)[[val, train]].mean()
    point = "o" if curves["epoch"].nunique() == 1 else None  # a line through one epoch is nothing
    columns = min(4, len(shown))
    panel_rows = -(-len(shown) // columns)
    fig = Figure(figsize=(WIDTH, 0.3 + 1.65 * panel_rows), layout="constrained")
    axes = fig.subplots(panel_rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, variant in zip(axes.flat, shown, strict=False):
        for other in variants[:60]:
            ax.plot(means.loc[other].index, means.loc[other, val], color=GRID, lw=0.9, marker=point, ms=3, zorder=1)
        for _, seed in curves[curves["variant"] == variant].groupby("seed"):
            ax.plot(seed["epoch"], seed[val], color=SERIES[0], lw=0.8, marker=point, ms=3, alpha=0.35)
        mean = means.loc[variant]
        ax.plot(mean.index, mean[train], color=SERIES[1], lw=1.1, ls=(0, (3, 2)), marker=point, ms=4)
        ax.plot(mean.index, mean[val], color=SERIES[0], lw=2, marker=point, ms=5)
        ax.set_title("\n".join(textwrap.wrap(shorten(variant, 44), 96 // columns, max_lines=2)), fontsize=8, pad=3)
        ax.xaxis.set_major_locator(FixedLocator(list(mean.index)) if point else MaxNLocator(4, integer=True))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    for column in range(columns):
        lowest = axes[(len(shown) - 1 - column) // columns, column]
        lowest.set_xlabel("epoch", fontsize=8.5)
        lowest.tick_params(labelbottom=True)
    seeds = curves.groupby("variant")["seed"].nunique()
    caption = (
        f"Bold: mean over {counted(seeds, 'seed')}; faint: each seed; dashed: mean on training images; "
        "grey: the other variants."
    )
    note = f"The first {len(shown)} of {len(variants)} variants." if len(variants) > len(shown) else ""
    _frame(fig, title, caption, note=note)
    return fig


@matplotlib.rc_context(STYLE)
def cost_breakdown(costs: pd.DataFrame, metric: str = "macs", caption: str = "") -> Figure:
    """Stacked horizontal bars: where a cost sits.

    Args:
        costs: a row for each bar (variants, stages, branches), a column for each part; values in the metric's unit.
        metric: key of `METRICS`. At most 26 bars are drawn, the first ones.
        caption: what stands below the title.
    """
    shown = costs.loc[:, (costs.fillna(0) != 0).any()].iloc[:MAX_BARS].fillna(0)
    fig, ax = _figure(0.5 + 0.28 * max(len(shown), 2))
    title = f"{axis_label(metric)} by part"
    note = f"The first {len(shown)} of {len(costs)}." if len(costs) > len(shown) else ""
    if shown.empty:
        _frame(fig, title)
        return _empty(fig, ax)
    left = np.zeros(len(shown))
    position = np.arange(len(shown))
    for part, color in part_colors(map(str, shown.columns)).items():
        width = shown[part].to_numpy(dtype=float)
        ax.barh(position, width, 0.66, left=left, color=color, label=part_label(part), edgecolor=PAPER, lw=0.8)
        left += width
    for where, total in zip(position, left, strict=True):
        ax.annotate(
            format_value(METRICS[metric], float(total)),
            (total, where),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=MUTED,
        )
    ax.set_yticks(position, [shorten(name, 34) for name in shown.index], color=INK)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.grid(visible=True, axis="x")
    ax.spines["left"].set_visible(False)
    ax.set_xlim(0, max(left.max(), 1e-12) * 1.1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    _frame(fig, title, caption, ax, note)
    return fig


@matplotlib.rc_context(STYLE)
def deltas(table: pd.DataFrame, y: str, reference: str, dataset: str | None = None) -> Figure:
    """Differences to a reference variant, paired by seed: a dot, a bar of one standard error and the 95 % interval.

    Args:
        table: the study's `table.csv`, with `<y>_delta`, `<y>_delta_se` and `<y>_delta_n`; at most 26 rows are drawn.
        y: key of `METRICS`.
        reference: what the others are compared with: the line at zero.
        dataset: the data set that accuracy was measured on.
    """
    known = table[table[f"{y}_delta"].notna()].reset_index(drop=True)
    shown = known.iloc[:MAX_BARS]
    fig, ax = _figure(0.6 + 0.3 * max(len(shown), 2))
    metric = METRICS[y]
    unit = "points" if metric.unit == "%" else metric.unit
    title = f"change of {metric_label(y, dataset)} against {reference}"
    note = f"The first {len(shown)} of {len(known)}." if len(known) > len(shown) else ""
    if shown.empty:
        _frame(fig, title)
        return _empty(fig, ax)
    ax.axvline(0, color=INK, lw=1, alpha=0.55, zorder=1)
    for error, width, alpha in (
        (half_width_95(shown, y), 1.0, 0.6),
        (shown[f"{y}_delta_se"].to_numpy(float), 2.6, 1.0),
    ):
        ax.errorbar(
            shown[f"{y}_delta"],
            shown.index,
            xerr=np.nan_to_num(error),
            fmt="o",
            ms=6.5,
            color=SERIES[0],
            ecolor=(SERIES[0], alpha),
            elinewidth=width,
        )
    ax.set_yticks(shown.index.to_numpy(), [shorten(name, 34) for name in shown["variant"]], color=INK)
    ax.invert_yaxis()
    ax.margins(0.08, 0.12)
    ax.grid(visible=False)
    ax.grid(visible=True, axis="x")
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(f"Δ {metric_label(y, dataset)}, {unit}")
    seeds = counted(shown[f"{y}_delta_n"].astype(int), "seed")
    caption = f"Mean over {seeds}, each seed against itself. Thick: ± its standard error; thin: its 95 % interval."
    _frame(fig, title, caption, note=note)
    return fig


@matplotlib.rc_context(STYLE)
def latency_comparison(frame: pd.DataFrame) -> Figure:
    """Median latencies with their spread, the floor that the matrix product sets, and ratios to the reference.

    Args:
        frame: one row a measurement, as the latency lab's `to_frame`; rows without a time say why. At most 26 are
            drawn, the first ones.
    """
    shown = frame.iloc[:MAX_BARS].reset_index(drop=True)
    fig, ax = _figure(0.6 + 0.3 * max(len(shown), 2))
    title = f"{metric_label('latency_ms')} of {'a training step' if frame['training'].any() else 'inference'}"
    timed = shown[shown["latency_ms"].notna()]
    note = f"The first {len(shown)} of {len(frame)}." if len(frame) > len(shown) else ""
    if timed.empty:
        _frame(fig, title, note=note)
        return _empty(fig, ax)
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
    floors = timed["gemm_floor_ms"].to_numpy(dtype=float)
    ax.plot(floors, timed.index, "|", ms=13, mew=2, color=SERIES[1], label="floor: the same MACs in one matrix product")
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
        caption += " ×: times as long as the first of the same size, in the same rounds."
    _frame(fig, title, caption, ax, note)
    return fig


@matplotlib.rc_context(STYLE)
def throughput_by_batch(frame: pd.DataFrame) -> Figure:
    """Images a second along the batch size: a line for each competitor, a ring around its knee.

    Args:
        frame: one row a measurement, as the latency lab's `to_frame`. At most six lines are drawn, the first ones.
    """
    timed = frame[frame["throughput_img_s"].notna()]
    fig, ax = _figure()
    title = axis_label("throughput_img_s") + " by batch size"
    if timed.empty:
        _frame(fig, title)
        return _empty(fig, ax)
    by = [name for name in ("model", "backend", "dtype", "height", "width") if timed[name].nunique() > 1] or ["model"]
    lines = list(timed.groupby(by, sort=False))
    for index, (names, group) in enumerate(lines[:MAX_LINES]):
        rows = group.sort_values("batch_size")
        sizes, rates = list(rows["batch_size"]), list(rows["throughput_img_s"])
        color = SERIES[index]
        ax.plot(
            sizes, rates, MARKERS[index], ls="-", ms=5.5, color=color, label=shorten(", ".join(map(str, names)), 40)
        )
        if len(sizes) >= 3 and (batch := knee(sizes, rates)) != max(sizes):
            ax.plot(batch, rates[sizes.index(batch)], "o", ms=13, mfc="none", mec=color, mew=1.4)
    ax.set_xscale("log", base=2)
    sizes = sorted(set(timed["batch_size"]))
    ax.set_xticks(sizes, map(str, sizes))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    ax.set(xlabel="images a call", ylabel=axis_label("throughput_img_s"))
    ax.set_ylim(bottom=0)
    first = timed.iloc[0]
    caption = f"On {first['device']}, {first['threads']} thread{'s' if first['threads'] > 1 else ''}. Ring: the knee, "
    note = f"The first {MAX_LINES} of {len(lines)}." if len(lines) > MAX_LINES else ""
    _frame(fig, title, caption + "the smallest batch with 90 % of the best throughput.", ax, note)
    return fig


def _latency_remark(row: "pd.Series[Any]") -> str:
    """What stands beside a measurement: its time and its ratio to the reference, or why there is no time."""
    if pd.isna(row["latency_ms"]):
        return str(row["status"])
    time = format_value(METRICS["latency_ms"], row["latency_ms"])
    if pd.isna(row["ratio"]):
        return time
    return f"{time}, tie" if row["verdict"] == "tie" else f"{time}, {row['ratio']:.2f} ×"


def study_figures(
    table: pd.DataFrame,
    curves: pd.DataFrame | None = None,
    axis_names: Sequence[str] = (),
    costs: pd.DataFrame | None = None,
    dataset: str | None = None,
    pair: tuple[str, str] | None = None,
) -> dict[str, Figure]:
    """The figures that a study gets, by file name: those for which its table has values.

    Args:
        table: the study's `table.csv`, one row a variant.
        curves: the study's `curves.csv`, or None.
        axis_names: the study's axes, columns of `table`.
        costs: MACs, variants × parts, for `cost_breakdown`, or None.
        dataset: the data set that accuracy was measured on.
        pair: the two metrics (x, y) that the study sets against each other, beside those that every study gets.
    """

    def has(key: str) -> bool:
        return key in METRICS and key in table and bool(np.isfinite(table[key].to_numpy(dtype=float)).any())

    y = next((key for key in ("top1", "latency_ms", "params") if has(key)), None)
    figures: dict[str, Figure] = {}
    if y is None and pair is None:
        return figures
    pairs = [*([pair] if pair else ()), *((x, y) for x in ("macs", "params", "latency_ms") if y and x != y)]
    for across, up in dict.fromkeys(pairs):
        if has(across) and has(up):
            figures[f"{up}_against_{across}"] = tradeoff(table, across, up, dataset=dataset)
    for axis in axis_names:
        if y and axis in table and table[axis].nunique() > 1:
            figures[f"{y}_along_{axis}"] = axis_curve(
                table, axis, y, [name for name in axis_names if name != axis], dataset
            )
    if costs is not None and not costs.empty:
        figures["macs_by_part"] = cost_breakdown(costs)
    if curves is not None and not curves.empty:
        figures["training_curves"] = training_curves(curves, dataset=dataset)
    return figures


def save(fig: Figure, stem: Path) -> list[Path]:
    """Write `<stem>.png` (200 dpi) and `<stem>.svg` (text as text); the same figure always gives the same bytes."""
    png, svg = (stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg"))
    png.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        fig.savefig(png, dpi=200, metadata={"Software": None})
    svg.write_text(svg_markup(fig), encoding="utf-8")
    return [png, svg]


@matplotlib.rc_context(STYLE)
def svg_markup(fig: Figure) -> str:
    """The figure as an SVG document, without metadata: no date, no foreign addresses."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return buffer.getvalue()


def _figure(body: float = 3.7) -> tuple[Figure, Axes]:
    fig = Figure(figsize=(WIDTH, body), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots()


def _frame(fig: Figure, title: str, caption: str = "", legend: Axes | None = None, note: str = "") -> None:
    """Put title, quiet caption and legend above the figure, a note below; the figure grows by what they need."""
    titles, captions, notes = (
        textwrap.wrap(title[:1].upper() + title[1:], 74),
        textwrap.wrap(caption, 104),
        textwrap.wrap(note, 112),
    )
    handles, names = legend.get_legend_handles_labels() if legend else ([], [])
    columns = _columns(names)
    rows = -(-len(names) // columns)
    heights = [10, 16 * len(titles), 14 * len(captions), 18 * rows + 2 if rows else 0, 6]  # points
    above, below = sum(heights) / 72, (12 * len(notes) + 10 if notes else 6) / 72
    body = fig.get_figheight()
    height = body + above + below
    fig.set_figheight(height)

    def down(points: float) -> float:
        return 1 - points / 72 / height

    fig.text(LEFT, down(heights[0]), "\n".join(titles), va="top", fontsize=11.5, fontweight="bold")
    fig.text(
        LEFT,
        down(sum(heights[:2]) + 1),
        "\n".join(captions),
        va="top",
        fontsize=8.5,
        color=MUTED,
        linespacing=1.3,
    )
    fig.text(LEFT, 7 / 72 / height, "\n".join(notes), va="bottom", fontsize=8, color=MUTED, linespacing=1.3)
    if names:
        fig.legend(
            handles, names, loc="upper left", bbox_to_anchor=(LEFT, down(sum(heights[:3]) + 3)), ncols=columns,
            borderpad=0, borderaxespad=0, handletextpad=0.5, columnspacing=1.4, handlelength=1.3, labelspacing=0.45,
        ).set_in_layout(False)  # fmt: skip
    pad = 0.1  # inches
    engine = fig.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, below / height, 1, body / height), w_pad=pad, h_pad=0.03)


def _columns(names: Sequence[str]) -> int:
    """How many columns a legend of these names can have within the figure's width."""
    widest = max(map(len, names), default=1)
    return max(1, min(len(names), int(104 / (widest + 5))))


def _missing(count: int, total: int, keys: Iterable[str], dataset: str | None) -> str:
    """The note on variants that are left out."""
    names = " or ".join(axis_label(key, dataset) for key in keys)
    return f"Left out: {count} of {total} variants, for want of {names}." if count else ""


def _empty(fig: Figure, ax: Axes) -> Figure:
    ax.set_axis_off()
    ax.text(0.5, 0.5, "No values to show.", transform=ax.transAxes, ha="center", va="center", color=MUTED)
    return fig


def counted(numbers: "pd.Series[int]", noun: str) -> str:
    """How many of something rows have.

    >>> counted(pd.Series([3, 2]), "seed"), counted(pd.Series([1, 1]), "seed")
    ('2 to 3 seeds', '1 seed')
    """
    low, high = int(numbers.min()), int(numbers.max())
    span = str(high) if low == high else f"{low} to {high}"
    return f"{span} {noun}{'' if high == 1 else 's'}"


def _spread_caption(rows: pd.DataFrame, *keys: str) -> str:
    """What the bars or the band are, in words."""
    said = []
    for key in keys:
        if not spread(rows, key).any():
            continue
        name = METRICS[key].label.removesuffix(PROXY)
        if f"{key}_std" in rows:
            seeds = f" over {counted(rows[f'{key}_n'].dropna().astype(int), 'seed')}" if f"{key}_n" in rows else ""
            said.append(f"{name[:1].upper()}{name[1:]}: mean ± 1 std{seeds}.")
        else:
            said.append(f"{name[:1].upper()}{name[1:]}: median, 10th to 90th percentile.")
    return " ".join(said)


def _tradeoff_caption(rows: pd.DataFrame, x: str, y: str) -> str:
    return f"{_spread_caption(rows, y, x)} Filled points and the line: Pareto front of the central values.".strip()


def _groups(rows: pd.DataFrame) -> list[tuple[str | None, pd.DataFrame]]:
    """Rows by `matching` (as they are, or scaled to equal cost), where a study has it."""
    if "matching" not in rows or rows["matching"].nunique() < 2:
        return [(None, rows)]
    return [(str(name), part) for name, part in rows.groupby(rows["matching"].fillna("–"), sort=False)]


def _point_name(row: "pd.Series[Any]", label: str) -> str:
    """The variant's name, without the matching that its colour tells already."""
    name = str(row[label])
    return shorten(name.removesuffix(f", {row['matching']}") if "matching" in row else name)


def _metric_axis(ax: Axes, which: str, values: "pd.Series[float]") -> None:
    """SI ticks; logarithmic where the values span more than a factor of ten."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = float(values.min()), float(values.max())
    if which == "x" and 0 < low < high / 10:
        ax.set_xscale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))


def _axis_positions(ax: Axes, column: "pd.Series[Any]") -> NDArray[np.float64]:
    """Where each row stands along x, with a tick at every value."""
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().all():
        values = np.unique(numbers.to_numpy(dtype=float))
        if len(values) <= 12:
            ax.xaxis.set_major_locator(FixedLocator(values.tolist()))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
        return numbers.to_numpy(dtype=float)
    codes, names = pd.factorize(column.astype(str))
    labels = [shorten(name, 20) for name in names]
    tilted = sum(map(len, labels)) > 70
    ax.set_xticks(range(len(names)), labels, rotation=30 if tilted else 0, ha="right" if tilted else "center")
    return codes.astype(float)


def _place_labels(
    ax: Axes, rows: pd.DataFrame, x: str, y: str, names: Sequence[tuple[int, str]], front: pd.DataFrame
) -> None:
    """Name the points where there is room, nearest place first, farther ones with a line to their point, and over the
    bars of spreads if it must be; a name that finds no room, or would be taken for another point's, is left out.

    Args:
        names: (row, text); the front's come first, and there, as among the rest, those whose neighbours are nearest.
        front: the rows on the Pareto front by x, whose line should stay free.
    """
    fig = ax.figure
    assert isinstance(fig, Figure)
    fig.draw_without_rendering()  # fixes the layout, so that pixels can be compared
    renderer = FigureCanvasAgg(fig).get_renderer()
    pixel = fig.dpi / 72  # of one point
    to_pixels = ax.transData.transform
    points = to_pixels(rows[[x, y]].to_numpy(dtype=float))
    bars = []
    for column, sign in ((0, -1), (1, 1)):  # the bars' ends, from the point
        for axis, key in enumerate((x, y)):
            ends = rows[[x, y]].to_numpy(dtype=float, copy=True)
            ends[:, axis] += sign * spread(rows, key)[column]
            if ax.get_xscale() == "log":
                ends[:, 0] = ends[:, 0].clip(min=rows[x].min() / 10)
            bars.append(_boxes(points, to_pixels(ends), pixel))
    steps = to_pixels(front[[x, y]].to_numpy(dtype=float))
    corners = (
        np.stack([steps[1:, 0], steps[:-1, 1]], 1)
        if METRICS[x].better == "lower"
        else np.stack([steps[:-1, 0], steps[1:, 1]], 1)
    )
    step = _boxes(steps[:-1], corners, pixel), _boxes(corners, steps[1:], pixel)
    solid, faint = np.concatenate([_boxes(points, points, 4.5 * pixel), *step]), np.concatenate(bars)
    frame = ax.get_window_extent(renderer)
    placed = np.zeros((0, 4))
    others = {row: points[np.hypot(*(points - points[row]).T) > pixel] for row, _ in names}  # that stand elsewhere

    def urgency(named: tuple[int, str]) -> tuple[bool, float]:
        row, _ = named
        return row not in front.index, np.hypot(*(others[row] - points[row]).T).min(initial=np.inf)

    for row, name in sorted(names, key=urgency):
        text = ax.annotate(
            name,
            (rows[x][row], rows[y][row]),
            (0, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
            zorder=5,
        )
        size = text.get_window_extent(renderer)
        for over_bars, (far, *place) in itertools.product((False, True), _PLACES):
            corner = points[row] + pixel * np.array(place[:2]) - np.array(place[2:]) * (size.width, size.height)
            if far:  # the line shows whose it is, so it may give way to the frame
                corner[0] = min(max(corner[0], frame.x0 + 2 * pixel), frame.x1 - size.width)
            box = np.concatenate([corner, corner + np.array([size.width, size.height])])
            inside = box[0] >= frame.x0 and box[1] >= frame.y0 and box[2] <= frame.x1 and box[3] <= frame.y1 + 2 * pixel
            line = np.linspace(points[row], points[row].clip(box[:2], box[2:]), 20) if far else np.zeros((0, 2))
            trail = _boxes(line, line, pixel)
            free = not _meet(box[None], solid) and (over_bars or not _meet(box[None], faint))
            if inside and free and not _meet(trail, placed) and _is_own(points[row], others[row], box, line, pixel):
                # Annotations stand on their baseline: shift by what hangs below it.
                baseline = points[row][1] - size.y0
                offset = (corner - points[row] + (0, baseline)) / pixel
                text.set_position((offset[0], offset[1]))
                placed = np.concatenate([placed, box[None]])
                solid = np.concatenate([solid, box[None], trail])
                if far:
                    ends = ax.transData.inverted().transform(line[[0, -1]])
                    ax.add_artist(Line2D(ends[:, 0], ends[:, 1], color=MUTED, lw=0.6, zorder=1.5))
                break
        else:
            text.remove()


def _is_own(
    point: NDArray[np.float64],
    others: NDArray[np.float64],
    box: NDArray[np.float64],
    line: NDArray[np.float64],
    pixel: float,
) -> bool:
    """Whether a name in that box is seen to be this point's: it is clearly nearer than any other, or a line leads to it
    that touches no other."""
    if not len(line):
        own, apart = (np.hypot(*(at - at.clip(box[:2], box[2:])).T) for at in (point, others))
        return bool((1.5 * own < apart).all())
    own, apart = np.hypot(*(line - point).T)[:, None], np.hypot(*(line[:, None] - others[None]).T).T
    return bool(((apart > 6 * pixel) | (own < apart)).all())


_ABOUT = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.75, 0.75), (-0.75, 0.75), (0.75, -0.75), (-0.75, -0.75))
_ASLANT = tuple((dx, dy) for dy in (0.6, -0.6) for dx in (0.8, -0.8, 0.35, -0.35))  # a line that no bar hides
_NEAR, _FAR = (7, 12, 18), (26, 36, 48, 62, 78)

# Places for a name about its point: whether it is so far that a line must lead there, offset in points, and which
# share of the text's width and height lies before it.
_PLACES = [
    (far, dx * reach, dy * reach, float(dx < 0) if far else (1 - dx) / 2, (1 - dy) / 2)
    for far, reaches, directions in ((False, _NEAR, _ABOUT), (True, _FAR, _ASLANT))
    for reach in reaches
    for dx, dy in directions
]


def _meet(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether any of the boxes a, (n, 4), overlaps any of the boxes b, (m, 4)."""
    return bool(((a[:, None, :2] < b[:, 2:]) & (a[:, None, 2:] > b[:, :2])).all(-1).any())


def _boxes(a: NDArray[np.float64], b: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """Boxes (n, 4) that span the points a and b, (n, 2) each, with a margin."""
    return np.concatenate([np.minimum(a, b) - margin, np.maximum(a, b) + margin], axis=1)
