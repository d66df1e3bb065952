"""Print measurements as tables in a terminal."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from hrvit_lab import cli
from hrvit_lab.latency.compare import knee
from hrvit_lab.latency.engine import UNSTEADY
from hrvit_lab.latency.estimate import Estimate
from hrvit_lab.latency.measurement import Measurement
from hrvit_lab.latency.parts import PartTimes
from hrvit_lab.latency.roofline import Ceilings, Roofline
from hrvit_lab.latency.steps import Report
from hrvit_lab.metrics import METRICS, format_value, si_scale

WIDE = 120
DETAILS = ("error", "FLOP/s", "byte/s")
"""Columns for terminals of at least ``WIDE`` columns; files always have them."""

SPREAD = "latency"
OPTIONAL_COLUMNS = (*DETAILS, "L2 cold", "compile", "mJ/img", "peak", "img/s", "device", "× floor", SPREAD)
"""Columns that are removed, in this order, until the table fits the terminal; of latency, only the spread is
removed."""

Cell = Callable[[Measurement], str]

STYLES = {"ok": "", "wrong": "bold red", "out of memory": "red", "refused": "dim", "failed": "red"}


def race_table(measurements: Sequence[Measurement], terminal_width: int) -> Group:
    """The table of a race, one row per competitor, followed by remarks. Columns without values are omitted; back end
    and number format are in the title if all rows have the same. ``DETAILS`` are shown in wide terminals only, and
    ``OPTIONAL_COLUMNS`` are removed until the table fits."""
    first = measurements[0]
    height, width = first.resolution
    what = "training step" if first.training else "inference"
    same = [head for head in ("backend", "dtype") if len({COLUMNS[head](m) for m in measurements}) == 1]
    title = [f"{what.capitalize()} at {height}×{width}", f"batch {first.batch_size}"]
    title += [COLUMNS[head](first) for head in same]
    columns = {head: [cell(m) for m in measurements] for head, cell in COLUMNS.items() if head not in same}
    shown = {head: cells for head, cells in columns.items() if any(cells)}
    left_out = [head for head in DETAILS if terminal_width < WIDE and head in shown]
    shown = {head: cells for head, cells in shown.items() if head not in left_out}
    name = f"{', '.join(title)}, on {_device(first)}"
    table = _table(name, measurements, shown)
    for head in (head for head in OPTIONAL_COLUMNS if head in shown):
        if Console(width=1000).measure(table).maximum <= terminal_width:
            break
        left_out.append(head)
        if head == SPREAD:
            shown[head] = [cell.partition(" (")[0] for cell in shown[head]]
        else:
            del shown[head]
        table = _table(name, measurements, shown)
    said = remarks(measurements)
    if left_out:
        left_out = ["10th to 90th percentile" if head == SPREAD else head for head in left_out]
        said.append(
            f"The terminal is too narrow for: {', '.join(left_out)}. Files of --json and --out have all columns."
        )
    return Group(table, Text("\n".join(said), style="dim"))


def _table(title: str, measurements: Sequence[Measurement], columns: dict[str, list[str]]) -> Table:
    table = cli.table(title)
    table.add_column("model", overflow="fold")
    for head in columns:
        table.add_column(head, justify="left" if head in ("backend", "dtype", "× first") else "right", no_wrap=True)
    for index, m in enumerate(measurements):
        cells = [Text(column[index]) for column in columns.values()]
        table.add_row(Text(m.model), *cells, style=STYLES.get(m.status, ""))
    return table


def remarks(measurements: Sequence[Measurement]) -> list[str]:
    """Sentences on the reliability of a race: failures, rounds, control, throttling, ceilings."""
    said = [f"{m.name}: {m.status}: {m.reason}." for m in measurements if m.status != "ok" and m.reason]
    timed = [m for m in measurements if m.latency]
    if not timed:
        return said
    first = timed[0]
    control, stopped = first.control, first.rounds_stopped
    assert control is not None
    half_width = max((m.ratio or control).half_width for m in timed)
    limits = {"rounds": "maximum number of rounds", "time": "time limit"}
    ended = {"precise": "", "interrupted": ", stopped by Ctrl-C"}.get(
        stopped or "", f", stopped by the {limits.get(stopped or '', '')}"
    )
    said.append(
        f"{first.statistics()['rounds']} rounds in {first.race_seconds:.0f} s{ended}; "
        f"widest interval ±{half_width:.1%}. A/A control: {_interval(control)}."
    )
    if not control.low <= 1 <= control.high:
        said.append("The A/A control differs from 1: differences of that size are not reliable.")
    reach = math.expm1(max(abs(math.log(control.low)), abs(math.log(control.high))))
    said += [
        f"{m.name}: a tie although its interval excludes 1: the A/A control differs from 1 by up to {reach:.1%}."
        for m in timed
        if m.ratio and m.verdict == "tie" and not m.ratio.low <= 1 <= m.ratio.high
    ]
    if first.rounds_discarded:
        dropped = f"{first.rounds_discarded} round{'s were' if first.rounds_discarded > 1 else ' was'}"
        said.append(f"{dropped} discarded because the device was throttled.")
    if unsteady := [m.name for m in timed if UNSTEADY in m.disturbed]:
        said.append(f"{UNSTEADY.rstrip('.')}: {', '.join(unsteady)}.")
    if unknown := [m.name for m in timed if m.steady is None]:
        said.append(f"Too few warm-up calls to tell whether the latency is steady: {', '.join(unknown)}.")
    said += [reason for reason in first.disturbed if reason != UNSTEADY]
    said += first.conditions.get("notes", [])
    if first.device != "cpu" and not any(m.energy for m in timed):
        said.append("Energy was not measured: it needs the package nvidia-ml-py and a GPU with an energy counter.")
    said += dict.fromkeys(_ceiling(m.dtype, m.ceilings) for m in timed if m.ceilings)
    said += [_below_floor(m.name, m.roofline) for m in timed if m.roofline and m.roofline.distance < 1]
    return said


def _ceiling(dtype: str, ceilings: Ceilings) -> str:
    """The matrix product that is the ceiling, and how it compares with the published peak."""
    said = f"Ceiling in {dtype}: {_si(ceilings.gemm_flop_s)}FLOP/s"
    if ceilings.gemm is not None:
        side, threads = ceilings.gemm.side, ceilings.threads
        said += f", by {ceilings.gemm.product} of {side} × {side} with {threads} thread{'s' * (threads > 1)}"
    if ceilings.peak_flop_s is None:
        return f"{said}; the published peak of this device is unknown."
    peak = f"{_si(ceilings.peak_flop_s)}FLOP/s ({ceilings.peak_formula})"
    if ceilings.above_peak:
        return f"{said}. This is above the published peak of {peak}: the timer is wrong, and so are all times here."
    return f"{said}, {ceilings.gemm_flop_s / ceilings.peak_flop_s:.0%} of the published peak of {peak}."


def _below_floor(name: str, line: Roofline) -> str:
    """Explain why a network is faster than its floor."""
    said = f"{name}: × floor is {_number(line.distance)}, below 1"
    if line.winograd:
        return (
            f"{said}: its 3 × 3 convolutions (by Winograd) or a deployed SegFormer decoder may multiply less than is "
            "counted; otherwise the ceiling is too low."
        )
    return f"{said}: the ceiling is too low, because this network is faster than every matrix product measured here."


LEGEND = (
    "Latency: median wall time of the batch (10th to 90th percentile); ! marks an unreliable measurement (see "
    "above). × first: latency divided by that of the reference, median over rounds, with its 95 % interval; tie: the "
    "interval contains 1, or the A/A control differs from 1 as much. × floor: latency divided by the time of the "
    "network's MACs (three times as many in training) at the speed of the fastest matrix product. img/s: batch size "
    "divided by median latency."
)
"""Explanation of the columns of a race's table."""


@contextmanager
def live(console: Console, doing: str = "", later_seconds: float = 0.0) -> Iterator[Report]:
    """Show the progress of a race in one line, with the elapsed time; shows nothing in files and pipes.

    Args:
        doing: prefix of each step.
        later_seconds: upper bound on the time of everything after this race.
    """

    with cli.working(console) as begins:
        yield lambda step: begins(f"{doing}{replace(step, seconds_left=step.seconds_left + later_seconds)}")


def parts_table(name: str, times: PartTimes) -> Group:
    """The table of latency by part, summed over stages and branches, with a comparison of the sum and the whole."""
    table = cli.table(f"By part: {name}")
    for head in ("part", "calls", METRICS["latency_ms"].label, "share"):
        table.add_column(head, justify="left" if head == "part" else "right")
    grouped = times.frame.groupby("part", sort=False)[["calls", "latency_ms"]].sum()
    total = grouped["latency_ms"].sum()
    for part, row in grouped.sort_values("latency_ms", ascending=False).iterrows():
        table.add_row(
            str(part), str(int(row["calls"])), _ms(float(row["latency_ms"])), f"{row['latency_ms'] / total:.1%}"
        )
    said = (
        f"Each part is timed alone, at its shapes in the network, eager. Sum of parts divided by the whole network: "
        f"{_interval(times.ratio)} (median over {times.rounds} rounds); median of the sum: {_ms(times.sum_ms)}, of the "
        f"whole: {_ms(times.whole_ms)}."
    )
    said = "\n".join([said, *times.conditions["remarks"], *times.conditions["notes"]])
    return Group(table, Text(said, style="dim"))


def parts_by_place(times: PartTimes) -> pd.DataFrame:
    """Latency in milliseconds: a row for each stage and branch in the network's order, a column for each part. Stages
    and branches are numbered from 0, as in the cost ledger."""
    frame = times.frame
    stages = frame["stage"].map(lambda stage: f"stage {stage}" if isinstance(stage, int) else str(stage))
    branches = frame["branch"].map(lambda branch: "" if pd.isna(branch) else f", branch {branch}")
    branches = branches.where(frame["part"] != "fusion", ", fusion")
    return frame.assign(place=stages + branches).pivot_table(
        index="place", columns="part", values="latency_ms", aggfunc="sum", sort=False
    )


def knees(measurements: Sequence[Measurement]) -> list[str]:
    """For each network timed at three batch sizes or more, the smallest with 90 % of its best throughput."""
    groups: dict[str, list[Measurement]] = {}
    for m in measurements:
        if m.latency:
            groups.setdefault(f"{m.name} at {m.resolution[0]}×{m.resolution[1]}", []).append(m)
    said = []
    for name, group in groups.items():
        if len(group) >= 3:
            rates = [m.throughput_img_s or 0.0 for m in group]
            sizes = [m.batch_size for m in group]
            batch = knee(sizes, rates)
            if batch == max(sizes):
                said.append(f"{name}: throughput still increases at batch size {batch}, the largest measured.")
                continue
            said.append(
                f"{name}: batch size {batch} is the smallest with 90 % of the best throughput "
                f"({format_value(METRICS['throughput_img_s'], max(rates))})."
            )
    return said


def _against(m: Measurement) -> str:
    if m.ratio is None:
        return "reference" if m.latency else m.status
    return f"{m.verdict if m.verdict == 'tie' else f'{m.ratio.value:.3f}'} {_bounds(m.ratio.low, m.ratio.high)}"


def _latency(m: Measurement) -> str:
    if not m.latency:
        return ""
    figures = m.statistics()
    low, high = figures["latency_p10_ms"], figures["latency_p90_ms"]
    assert low is not None and high is not None
    return f"{_ms(m.latency.value)}{' !' * bool(m.disturbed)} ({_ms(low)[:-3]}–{_ms(high)[:-3]})"


def _median_of(kind: str) -> Cell:
    def cell(m: Measurement) -> str:
        value = m.statistics()[f"{kind}_p50_ms"]
        return "" if value is None else _ms(value)

    return cell


COLUMNS: dict[str, Cell] = {
    "backend": lambda m: m.backend,
    "dtype": lambda m: m.dtype,
    "error": lambda m: "" if m.relative_error is None else f"{m.relative_error:.1g}",
    "latency": _latency,
    "× first": _against,
    "device": _median_of("device"),
    "L2 cold": _median_of("cold"),
    "× floor": lambda m: _number(m.roofline.distance) if m.roofline else "",
    "FLOP/s": lambda m: _si(m.roofline.flop_s) if m.roofline else "",
    "byte/s": lambda m: _si(m.roofline.byte_s) if m.roofline and m.roofline.byte_s else "",
    "img/s": lambda m: _number(m.throughput_img_s) if m.throughput_img_s else "",
    "peak": lambda m: "" if m.peak_memory_mib is None else format_value(METRICS["peak_memory_mib"], m.peak_memory_mib),
    "mJ/img": lambda m: _number(1e3 * m.energy.net_j / m.batch_size) if m.energy else "",
    "compile": lambda m: "" if m.compile_seconds is None else f"{m.compile_seconds:.1f} s",
}
"""Columns of a race's table, in order, by head."""


def _device(m: Measurement) -> str:
    return f"{m.device_name}, {m.threads} thread{'s' * (m.threads > 1)}"


def _ms(value: float) -> str:
    return format_value(METRICS["latency_ms"], value)


def _bounds(low: float, high: float) -> str:
    return f"[{low:.3f}, {high:.3f}]"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} {_bounds(estimate.low, estimate.high)}"


def _number(value: float) -> str:
    """Three significant digits, never an exponent."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def _si(value: float) -> str:
    scale, prefix = si_scale(value)
    return f"{value / scale:.3g} {prefix}"
