"""Measurements as tables for a terminal."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
from rich.console import Console, Group
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hrvit_lab import cli
from hrvit_lab.latency.compare import Estimate, knee
from hrvit_lab.latency.engine import UNSTEADY
from hrvit_lab.latency.measurement import Measurement
from hrvit_lab.latency.parts import PartTimes
from hrvit_lab.latency.roofline import Ceilings, Roofline
from hrvit_lab.latency.steps import Report, Step
from hrvit_lab.metrics import METRICS, format_value, si_scale

WIDE = 120
DETAILS = ("error", "FLOP/s", "byte/s")
"""Columns for wide terminals; files have them always."""

SPREAD = "latency"
DISPENSABLE = (*DETAILS, "L2 cold", "compile", "mJ/img", "peak", "img/s", "device", "× floor", SPREAD)
"""Columns that a terminal too narrow for all does without, in this order; of latency it does without the spread."""

Cell = Callable[[Measurement], str]

STYLES = {"ok": "", "wrong": "bold red", "out of memory": "red", "refused": "dim", "failed": "red"}


def race_table(measurements: Sequence[Measurement], terminal_width: int) -> Group:
    """One race: a line a competitor. Columns that nobody has a value for are left out, and what is the same for all
    stands in the title. A narrow terminal does without ``DETAILS``, and without as many ``DISPENSABLE`` columns as
    the others need to be shown uncut. Remarks stand below."""
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
    for head in (head for head in DISPENSABLE if head in shown):
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
        said.append(f"Not shown for want of width: {', '.join(left_out)}; --json and --out keep them.")
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
    """What a reader must know to believe a race, a sentence each."""
    said = [f"{m.name}: {m.status}: {m.reason}." for m in measurements if m.status != "ok" and m.reason]
    timed = [m for m in measurements if m.latency]
    if not timed:
        return said
    first = timed[0]
    control, stopped = first.control, first.rounds_stopped
    assert control is not None
    half_width = max((m.ratio or control).half_width for m in timed)
    ended = {"precise": "", "interrupted": ", ended by hand"}.get(stopped or "", f", ended by the bound on {stopped}")
    said.append(
        f"{first.statistics()['rounds']} rounds in {first.race_seconds:.0f} s{ended}; "
        f"widest interval ±{half_width:.1%}. A/A control: {_interval(control)}."
    )
    if not control.low <= 1 <= control.high:
        said.append("The A/A control differs from itself: believe no difference of that size.")
    reach = math.expm1(max(abs(math.log(control.low)), abs(math.log(control.high))))
    said += [
        f"{m.name}: a tie though its interval leaves out 1, for the A/A control itself is off by up to {reach:.1%}."
        for m in timed
        if m.ratio and m.verdict == "tie" and not m.ratio.low <= 1 <= m.ratio.high
    ]
    if first.rounds_discarded:
        dropped = f"{first.rounds_discarded} round{'s were' if first.rounds_discarded > 1 else ' was'}"
        said.append(f"{dropped} dropped, for the device was throttled.")
    if unsteady := [m.name for m in timed if UNSTEADY in m.disturbed]:
        said.append(f"{UNSTEADY.rstrip('.')}: {', '.join(unsteady)}.")
    if unknown := [m.name for m in timed if m.steady is None]:
        said.append(f"Too slow for the warm-up to tell whether it is steady: {', '.join(unknown)}.")
    said += [reason for reason in first.disturbed if reason != UNSTEADY]
    said += first.conditions.get("notes", [])
    if first.device != "cpu" and not any(m.energy for m in timed):
        said.append("Energy was not measured: it needs the package nvidia-ml-py and a GPU with a meter.")
    said += dict.fromkeys(_ceiling(m.dtype, m.ceilings) for m in timed if m.ceilings)
    said += [_below_floor(m.name, m.roofline) for m in timed if m.roofline and m.roofline.distance < 1]
    return said


def _ceiling(dtype: str, ceilings: Ceilings) -> str:
    """Which product was the ceiling, and whether the processor can be that fast."""
    said = f"Ceiling in {dtype}: {_si(ceilings.gemm_flop_s)}FLOP/s"
    if ceilings.gemm is not None:
        side, threads = ceilings.gemm.side, ceilings.threads
        said += f", by {ceilings.gemm.product} of {side} × {side} with {threads} thread{'s' * (threads > 1)}"
    if ceilings.peak_flop_s is None:
        return f"{said}; the published peak of this device is unknown."
    peak = f"{_si(ceilings.peak_flop_s)}FLOP/s ({ceilings.peak_said})"
    if ceilings.above_peak:
        return f"{said}. That is more than the published {peak}: the clock is wrong, and so are all times here."
    return f"{said}, {ceilings.gemm_flop_s / ceilings.peak_flop_s:.0%} of the published {peak}."


def _below_floor(name: str, line: Roofline) -> str:
    """Why a network is faster than its floor."""
    said = f"{name}: × floor is {_number(line.distance)}, below 1"
    if line.winograd:
        return (
            f"{said}: its 3 × 3 convolutions may multiply less than they count (Winograd); if they do not, the ceiling "
            "is too low."
        )
    return f"{said}, which cannot be: the ceiling is too low, no product measured here is as fast as this network."


LEGEND = (
    "Latency: median wall time of the batch (10th to 90th percentile); ! marks a disturbed measurement, the reasons "
    "stand above. × first: latency divided by that of the first, median over rounds, with its 95 % interval; tie: the "
    "difference is no larger than chance or the A/A control shows. × floor: latency divided by the time that the "
    "network's MACs (three times as many in training) take in the fastest matrix product. img/s: batch size divided by "
    "median latency."
)
"""How to read a race's table."""


@contextmanager
def live(console: Console, doing: str = "", later_seconds: float = 0.0) -> Iterator[Report]:
    """What a race reports as one changing line with the time that has passed; nothing in files and pipes.

    Args:
        doing: stands before each step.
        later_seconds: what comes after this race takes at most.
    """

    def show(step: Step) -> None:
        whole = replace(step, seconds_left=step.seconds_left + later_seconds)
        progress.update(task, description=f"{doing}{whole}")

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=None)
        yield show


def parts_table(name: str, times: PartTimes) -> Group:
    """Latency by part, over all stages and branches, with the sum beside the whole."""
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
        f"Each part alone at its real shapes, eager. The sum is {_interval(times.ratio)} of the whole, round by round "
        f"({times.rounds} rounds; medians of both: {_ms(times.sum_ms)}, {_ms(times.whole_ms)})."
    )
    said = "\n".join([said, *times.conditions["remarks"], *times.conditions["notes"]])
    return Group(table, Text(said, style="dim"))


def parts_by_place(times: PartTimes) -> pd.DataFrame:
    """Milliseconds, a row for each stage and branch in the network's order, a column for each part. Stages and branches
    are numbered from 0, as in the ledger of costs."""
    frame = times.frame
    stages = frame["stage"].map(lambda stage: f"stage {stage}" if isinstance(stage, int) else str(stage))
    branches = frame["branch"].map(lambda branch: "" if pd.isna(branch) else f", branch {branch}")
    branches = branches.where(frame["part"] != "fusion", ", fusion")
    return frame.assign(place=stages + branches).pivot_table(
        index="place", columns="part", values="latency_ms", aggfunc="sum", sort=False
    )


def knees(measurements: Sequence[Measurement]) -> list[str]:
    """For each network timed at three batches or more, the smallest batch with 90 % of its best throughput."""
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
                said.append(f"{name}: throughput still grows at batch {batch}, the largest measured: no knee yet.")
                continue
            said.append(
                f"{name}: batch {batch} is the knee, the smallest with 90 % of the best throughput "
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
"""Columns of a race's table, in order."""


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
