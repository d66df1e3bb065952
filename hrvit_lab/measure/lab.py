"""The latency lab: models × back ends × number formats race under one setting, and each leaves one measurement.

In order: the numerics gate, a warm-up until steady, interleaved rounds with an A/A control, energy. What does not fit
into memory, computes something else or cannot run is a measurement too: one that says so and has no times.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from hrvit_lab.measure.backends import BACKENDS, Prepared, Refused, find_backend
from hrvit_lab.measure.compare import (
    CONTROL,
    FEWEST_ROUNDS,
    Budget,
    Estimate,
    Rounds,
    Stop,
    Verdict,
    bootstrap_median,
    judge,
    paired_ratio,
)
from hrvit_lab.measure.count import UncountedOperator, count
from hrvit_lab.measure.energy import Energy, energy_per_call, idle_power, nvml_meter
from hrvit_lab.measure.engine import Warm, cold_times, device_times, wall_times, warmed, watched
from hrvit_lab.measure.environment import environment
from hrvit_lab.measure.gate import (
    Finding,
    check,
    reference_gradients,
    reference_output,
    step_gradients,
    training_step,
)
from hrvit_lab.measure.memory import measure_peak_memory
from hrvit_lab.measure.models import NamedModel
from hrvit_lab.measure.roofline import Ceilings, Roofline, measure_ceilings, roofline
from hrvit_lab.measure.timing import Clock, garbage_collector_paused, intra_op_threads
from hrvit_lab.measure.workload import (
    DTYPES,
    MEMORY_FORMATS,
    OutOfDeviceMemory,
    Workload,
    device_name,
    find_device,
    ieee_float32,
    input_channels,
    memory_errors_named,
    noise,
    prepare,
)
from hrvit_lab.model import HRViT

Status = Literal["ok", "wrong", "out of memory", "refused", "failed", "interrupted"]

TRAINING_MACS = 3
"""A training step's multiply-accumulates by those of inference: a backward pass has two products for each."""
ENERGY_SECONDS = 3.0
IDLE_SECONDS = 2.0


@dataclass(frozen=True)
class Entry:
    """One competitor.

    Attributes:
        model: from ``find_model``, or any ``NamedModel``.
        backend: a key of ``BACKENDS``.
        dtype: of weights and input; float32 is IEEE arithmetic, never TF32.
    """

    model: NamedModel
    backend: str = "eager"
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """How it is told from the others in its race."""
        return f"{self.model.name}, {self.backend}, {self.dtype}"


@dataclass(frozen=True)
class Setting:
    """What all competitors of a race share.

    Attributes:
        resolution: input height and width in pixels.
        batch_size: images a call.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        memory_format: ``"contiguous"``, a contiguous input, and weights as the model has them; or ``"channels_last"``.
        threads: torch's CPU threads; None keeps the present number.
        training: time a training step in place of inference: forward pass in training mode, mean square of the
            outputs as the loss, backward pass to fresh gradients; no optimiser.
    """

    resolution: tuple[int, int] = (224, 224)
    batch_size: int = 1
    device: str = "cpu"
    memory_format: str = "contiguous"
    threads: int | None = None
    training: bool = False


@dataclass(frozen=True)
class Measurement:
    """What one competitor left. Times are of the whole batch; None and empty mean: not measured.

    Attributes:
        model, backend, dtype: the entry's.
        resolution, batch_size, device, memory_format, threads, training: the setting's.
        device_name: the product's name.
        status: ``"ok"``, ``"wrong"`` (numerics; not timed), ``"out of memory"``, ``"refused"`` (the back end cannot),
            ``"failed"`` (it tried) or ``"interrupted"`` (timed, but cut short).
        reason: in words, if not ok.
        relative_error, tolerance: from the numerics gate: outputs, or gradients of a training step, against eager
            float32 of the plain network.
        compile_seconds: spent on compiling, capturing or exporting.
        steady: whether the warm-up became steady within its bounds; if not, distrust the times. None: there was no
            time for enough calls to tell.
        warmup_samples_ms: calls before the race.
        samples_ms: wall times, one a round, thrown-out rounds included.
        device_samples_ms: the same calls by CUDA events.
        cold_samples_ms: further calls by CUDA events, with the L2 cache overwritten before each.
        throttled: for each round what slowed the device down; such rounds count nowhere, unless nearly all are.
        rounds_discarded: how many these are.
        latency: median wall time with its interval.
        against: the name of the reference.
        ratio: times as long as the reference, paired by round; None for the reference itself.
        verdict: what the ratio means.
        control: the ratio of the reference to itself in the same race: the method's own error.
        rounds_stopped, race_seconds: why the race ended, and after how long.
        macs: of the batch; three times as many in training.
        ceilings, roofline: what the device can do, and how far this is from it.
        energy: of a call, on a GPU with a meter.
        peak_memory_mib: of a call, eager only.
        conditions: clocks, heat, power, load and remarks, over the race.
        environment: versions, machine, commit, command, date.
    """

    model: str
    backend: str
    dtype: str
    resolution: tuple[int, int]
    batch_size: int
    device: str
    device_name: str
    memory_format: str
    threads: int
    training: bool
    status: Status = "ok"
    reason: str = ""
    relative_error: float | None = None
    tolerance: float | None = None
    compile_seconds: float | None = None
    steady: bool | None = None
    warmup_samples_ms: tuple[float, ...] = ()
    samples_ms: tuple[float, ...] = ()
    device_samples_ms: tuple[float, ...] = ()
    cold_samples_ms: tuple[float, ...] = ()
    throttled: tuple[tuple[str, ...], ...] = ()
    rounds_discarded: int = 0
    latency: Estimate | None = None
    against: str | None = None
    ratio: Estimate | None = None
    verdict: Verdict | None = None
    control: Estimate | None = None
    rounds_stopped: Stop | None = None
    race_seconds: float | None = None
    macs: int | None = None
    ceilings: Ceilings | None = None
    roofline: Roofline | None = None
    energy: Energy | None = None
    peak_memory_mib: float | None = None
    conditions: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The entry's name."""
        return f"{self.model}, {self.backend}, {self.dtype}"

    @property
    def throughput_img_s(self) -> float | None:
        """Images a second: batch size by median wall time."""
        return 1e3 * self.batch_size / self.latency.value if self.latency else None

    def statistics(self) -> dict[str, float | int | None]:
        """Figures of the rounds that count: rounds, throughput, and for each kind of time min, p10, p50, p90, p99."""
        kept = [index for index, reasons in enumerate(self.throttled) if not reasons or not self.rounds_discarded]
        figures: dict[str, float | int | None] = {"rounds": len(kept), "throughput_img_s": self.throughput_img_s}
        for kind, samples in (
            ("latency", self.samples_ms),
            ("device", self.device_samples_ms),
            ("cold", self.cold_samples_ms),
        ):
            times = [samples[index] for index in kept] if samples else []
            figures[f"{kind}_min_ms"] = min(times) if times else None
            for q in (10, 50, 90, 99):
                figures[f"{kind}_p{q}_ms"] = float(np.percentile(times, q)) if times else None
        return figures

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON knows it; estimates as value, low and high."""
        record = asdict(self) | {"name": self.name, **self.statistics()}
        for key in ("latency", "ratio", "control"):
            estimate: Estimate | None = getattr(self, key)
            record[key] = None if estimate is None else estimate._asdict()
        if self.relative_error == float("inf"):
            record["relative_error"] = None  # JSON has no infinity; the reason says what happened
        return record


@dataclass(frozen=True)
class _Ready:
    """A competitor on the starting line."""

    entry: Entry
    warm: Warm
    finding: Finding
    compile_seconds: float | None
    peak_memory_mib: float | None


class _Stopped(Exception):
    """A competitor that does not reach the starting line."""

    def __init__(self, status: Status, reason: str, finding: Finding | None = None) -> None:
        super().__init__(reason)
        self.status: Status = status
        self.reason = reason
        self.finding = finding


def race(
    entries: Sequence[Entry],
    setting: Setting,
    budget: Budget | None = None,
    *,
    seed: int = 0,
    max_warmup_seconds: float = 10.0,
    clock: Clock = time.perf_counter,
    nvml: Any = None,
    report: Callable[[str], object] = lambda text: None,
) -> list[Measurement]:
    """Time competitors against the first of them.

    Args:
        entries: all different.
        setting: shared by all.
        budget: of the race; None takes the defaults.
        seed: of the input and of the order within rounds.
        max_warmup_seconds: for each competitor's warm-up, steady or not.
        clock: monotonic seconds.
        nvml: ``load_nvml()``, for clocks and energy of a GPU; None leaves them out.
        report: told in words what is going on.
    Returns:
        One measurement an entry, in their order. If the first cannot be timed, the next that can is the reference.
        After Ctrl-C during the rounds, what was measured, with status ``"interrupted"``.
    Raises:
        ValueError: for a setting that does not exist, a device that is not present, or a back end without its package.
        KeyboardInterrupt: on Ctrl-C, as long as there is nothing to keep.
    """
    device = _validate(entries, setting)
    with ExitStack() as stack:
        threads = stack.enter_context(intra_op_threads(setting.threads))
        stack.enter_context(ieee_float32())
        for context in {BACKENDS[entry.backend].context for entry in entries} - {nullcontext}:
            stack.enter_context(context())
        facts: dict[str, Any] = dict(
            resolution=setting.resolution,
            batch_size=setting.batch_size,
            device=str(device),
            device_name=device_name(device),
            memory_format=setting.memory_format,
            threads=threads,
            training=setting.training,
            environment=environment(),
        )
        ceilings: dict[str, Ceilings] = {}
        for dtype in dict.fromkeys(entry.dtype for entry in entries):  # first: later there may be no memory left
            report(f"ceilings in {dtype}: matrix product and copy")
            with torch.inference_mode():
                ceilings[dtype] = measure_ceilings(device, dtype, clock=clock)
        ready: list[_Ready] = []
        results: dict[str, Measurement] = {}
        references: dict[int, list[Tensor]] = {}
        for entry in entries:
            try:
                ready.append(_make_ready(entry, setting, device, references, seed, max_warmup_seconds, clock, report))
            except _Stopped as stopped:
                finding = stopped.finding
                results[entry.name] = Measurement(
                    entry.model.name, entry.backend, entry.dtype, **facts, status=stopped.status, reason=stopped.reason,
                    relative_error=finding.relative_error if finding else None,
                    tolerance=finding.tolerance if finding else None,
                )  # fmt: skip
        references.clear()
        if ready:
            for result in _timed(
                ready, setting, facts, ceilings, device, budget or Budget(), seed, clock, nvml, report
            ):
                results[result.name] = result
    return [results[entry.name] for entry in entries]


def _validate(entries: Sequence[Entry], setting: Setting) -> torch.device:
    """The device; a ValueError for whatever cannot be asked."""
    if not entries:
        raise ValueError("a race needs at least one entry")
    names = [entry.name for entry in entries]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is entered twice; give it once, the A/A control is built in")
    for entry in entries:
        find_backend(entry.backend)
        if entry.dtype not in DTYPES:
            raise ValueError(f"dtype {entry.dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    if setting.memory_format not in MEMORY_FORMATS:
        raise ValueError(f"memory_format {setting.memory_format!r} is unknown; use one of {', '.join(MEMORY_FORMATS)}")
    for name in ("batch_size", "threads"):
        if (number := getattr(setting, name)) is not None and number < 1:
            raise ValueError(f"{name} is {number}; use at least 1")
    for entry in entries:
        if isinstance(entry.model.plain, HRViT):
            entry.model.plain.config.check_resolution(setting.resolution)
    return find_device(setting.device)


def _make_ready(
    entry: Entry,
    setting: Setting,
    device: torch.device,
    references: dict[int, list[Tensor]],
    seed: int,
    max_warmup_seconds: float,
    clock: Clock,
    report: Callable[[str], object],
) -> _Ready:
    """Build, pass the gate, warm up; ``_Stopped`` if any of that fails."""
    backend = BACKENDS[entry.backend]
    if refusal := backend.refusal(setting.device, entry.dtype, setting.training):
        raise _Stopped("refused", refusal)
    if setting.training and entry.model.module is not entry.model.plain:
        raise _Stopped("refused", "the deployed form is for inference; time the plain model's training step")
    try:
        report(f"{entry.name}: numerics of the reference")
        reference = _reference(entry.model.plain, setting, device, references, seed)
        peak = None
        if entry.backend == "eager":
            report(f"{entry.name}: peak memory")
            peak = measure_peak_memory(
                entry.model.module, setting.resolution, batch_size=setting.batch_size, device=setting.device,
                dtype=entry.dtype, memory_format=setting.memory_format, training=setting.training,
            )  # fmt: skip
        load = prepare(
            entry.model.module, setting.resolution, batch_size=setting.batch_size, device=setting.device,
            dtype=entry.dtype, memory_format=setting.memory_format, seed=seed,
        )  # fmt: skip
        with memory_errors_named(load.name), torch.inference_mode(not setting.training):
            report(f"{entry.name}: {'compiling' if entry.backend != 'eager' else 'numerics'}")
            prepared = backend.prepare(load)
            finding = check(_judged_output(load, prepared, setting.training), reference, entry.dtype)
            if not finding.passed:
                raise _Stopped("wrong", _wrong(finding, setting.training), finding)
            call, seconds = _callable(load, prepared, setting.training, clock)
            report(f"{entry.name}: warming up")
            with garbage_collector_paused():
                warm = warmed(call, device, clock=clock, max_seconds=max_warmup_seconds)
    except _Stopped:
        raise
    except Refused as refused:
        raise _Stopped("refused", str(refused)) from None
    except OutOfDeviceMemory as error:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise _Stopped("out of memory", str(error)) from None
    except Exception as error:  # whatever a compiler or an engine raises is its result, and no other row's
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise _Stopped("failed", f"{type(error).__name__}: {first_line[:200]}") from error
    return _Ready(entry, warm, finding, seconds, peak)


def _reference(
    plain: nn.Module, setting: Setting, device: torch.device, known: dict[int, list[Tensor]], seed: int
) -> list[Tensor]:
    """Outputs (in training: gradients) of the plain network, eager, in float32; computed once a network."""
    if id(plain) not in known:
        name = f"float32 reference, batch {setting.batch_size} on {device_name(device)}"
        with memory_errors_named(name):
            images_BCHW = noise(setting.batch_size, input_channels(plain), *setting.resolution, seed).to(device)
            reference = reference_gradients if setting.training else reference_output
            known[id(plain)] = reference(plain, images_BCHW)
    return known[id(plain)]


def _judged_output(load: Workload, prepared: Prepared, training: bool) -> Any:
    """What the gate looks at: outputs; or the gradients of a step in eval mode, where nothing is left to chance."""
    if not training:
        return prepared.run()
    training_step(load.model, prepared.run)
    return step_gradients(load.model)


def _wrong(finding: Finding, training: bool) -> str:
    what = "gradients are" if training else "output is"
    return (
        f"its {what} off by {finding.relative_error:.2g} of eager float32's norm, more than {finding.tolerance:g}: "
        "wrong, so not timed"
    )


def _callable(
    load: Workload, prepared: Prepared, training: bool, clock: Clock
) -> tuple[Callable[[], Any], float | None]:
    """What is timed, and the seconds spent on compiling, those of the first training step included."""
    if not training:
        return prepared.run, prepared.compile_seconds
    load.model.train()

    def step() -> None:
        training_step(load.model, prepared.run)

    if prepared.compile_seconds is None:
        return step, None
    began = clock()
    step()
    return step, prepared.compile_seconds + clock() - began


def _timed(
    ready: Sequence[_Ready],
    setting: Setting,
    facts: dict[str, Any],
    ceilings: dict[str, Ceilings],
    device: torch.device,
    budget: Budget,
    seed: int,
    clock: Clock,
    nvml: Any,
    report: Callable[[str], object],
) -> list[Measurement]:
    """The race itself, and energy after it."""

    def on_round(rounds: int, half_width: float) -> None:
        width = f", widest interval ±{half_width:.1%}" if half_width < float("inf") else ""
        report(f"round {rounds}, {len(ready)} in the race and the A/A control{width}")

    reference = ready[0].entry.name
    with torch.inference_mode(not setting.training), garbage_collector_paused():
        rounds, conditions = watched(
            {competitor.entry.name: competitor.warm.stopwatch for competitor in ready}, budget, device, seed=seed,
            clock=clock, nvml=nvml, on_round=on_round,
        )  # fmt: skip
        if len(rounds.throttled) < min(FEWEST_ROUNDS, budget.min_rounds):
            raise KeyboardInterrupt
        energies = _energies(ready, device, nvml, rounds, clock, report)

    base = rounds.wall_ms(reference)
    control = paired_ratio(rounds.wall_ms(CONTROL), base)
    return [
        _measurement(
            competitor, rounds, reference, base, control, facts, ceilings[competitor.entry.dtype], conditions, energy
        )
        for competitor, energy in zip(ready, energies, strict=True)
    ]


def _energies(
    ready: Sequence[_Ready],
    device: torch.device,
    nvml: Any,
    rounds: Rounds,
    clock: Clock,
    report: Callable[[str], object],
) -> list[Energy | None]:
    meter = nvml_meter(device, nvml) if device.type == "cuda" and nvml is not None else None
    if meter is None or rounds.stopped == "interrupted":
        return [None] * len(ready)
    report("power of the waiting device")
    torch.cuda.synchronize(device)
    idle_w = idle_power(meter, seconds=IDLE_SECONDS, clock=clock)
    energies: list[Energy | None] = []
    for competitor in ready:
        report(f"{competitor.entry.name}: energy")
        energies.append(
            energy_per_call(
                competitor.warm.call, lambda: torch.cuda.synchronize(device), meter, idle_w=idle_w,
                seconds=ENERGY_SECONDS, clock=clock,
            )
        )  # fmt: skip
    return energies


def _measurement(
    competitor: _Ready,
    rounds: Rounds,
    reference: str,
    base: list[float],
    control: Estimate,
    facts: dict[str, Any],
    ceilings: Ceilings,
    conditions: dict[str, Any],
    energy: Energy | None,
) -> Measurement:
    entry = competitor.entry
    samples = rounds.samples[entry.name]
    times = rounds.wall_ms(entry.name)
    latency = bootstrap_median(times)
    ratio = None if entry.name == reference else paired_ratio(times, base)
    batch_size, training = facts["batch_size"], facts["training"]
    macs, moved_bytes = _work(entry, facts["resolution"], batch_size, training)
    interrupted = rounds.stopped == "interrupted"
    return Measurement(
        entry.model.name,
        entry.backend,
        entry.dtype,
        **facts,
        status="interrupted" if interrupted else "ok",
        reason="stopped by hand before the interval was narrow" if interrupted else "",
        relative_error=competitor.finding.relative_error,
        tolerance=competitor.finding.tolerance,
        compile_seconds=competitor.compile_seconds,
        steady=competitor.warm.steady,
        warmup_samples_ms=competitor.warm.warmup_ms,
        samples_ms=wall_times(samples),
        device_samples_ms=device_times(samples),
        cold_samples_ms=cold_times(samples),
        throttled=tuple(rounds.throttled),
        rounds_discarded=rounds.discarded,
        latency=latency,
        against=None if ratio is None else reference,
        ratio=ratio,
        verdict=None if ratio is None else judge(ratio, control),
        control=control,
        rounds_stopped=rounds.stopped,
        race_seconds=rounds.seconds,
        macs=macs,
        ceilings=ceilings,
        roofline=None if macs is None else roofline(latency.value, macs, moved_bytes, ceilings),
        energy=energy,
        peak_memory_mib=competitor.peak_memory_mib,
        conditions=conditions,
    )


def _work(entry: Entry, resolution: tuple[int, int], batch_size: int, training: bool) -> tuple[int | None, int | None]:
    """Multiply-accumulates and moved bytes of a batch of the plain network; None for what is not known."""
    plain = entry.model.plain
    try:
        counts = count(plain, resolution)
    except UncountedOperator:
        return None, None
    macs = counts.macs * batch_size * (TRAINING_MACS if training else 1)
    known = isinstance(plain, HRViT) and not training
    return macs, counts.moved_bytes(batch_size, entry.dtype) if known else None


def to_frame(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """One row a measurement, without raw samples; what was not measured is missing.

    Latencies are of the batch (``latency_ms`` is the median), energies of an image; ``distance`` is from the floor of
    the matrix product; ``ratio`` is to the reference ``against``, ``control_low`` to ``control_high`` the same for the
    reference against itself.
    """
    rows = []
    for m in measurements:
        figures = m.statistics()
        row: dict[str, Any] = {
            "model": m.model, "backend": m.backend, "dtype": m.dtype, "height": m.resolution[0],
            "width": m.resolution[1], "batch_size": m.batch_size, "training": m.training, "device": m.device_name,
            "threads": m.threads, "memory_format": m.memory_format, "status": m.status, "reason": m.reason,
            "relative_error": m.relative_error, "rounds": figures["rounds"], "rounds_discarded": m.rounds_discarded,
            "steady": m.steady, "latency_ms": figures["latency_p50_ms"],
        }  # fmt: skip
        row |= {f"latency_ms_{q}": figures[f"latency_{q}_ms"] for q in ("min", "p10", "p90", "p99")}
        row |= {f"{kind}_latency_ms": figures[f"{kind}_p50_ms"] for kind in ("device", "cold")}
        row["throughput_img_s"] = figures["throughput_img_s"]
        row["against"], row["verdict"] = m.against, m.verdict
        row |= dict(zip(("ratio", "ratio_low", "ratio_high"), m.ratio or (None,) * 3, strict=True))
        row |= dict(zip(("control", "control_low", "control_high"), m.control or (None,) * 3, strict=True))
        line = m.roofline
        row["gemm_floor_ms"] = line.gemm_floor_ms if line else None
        row["distance"] = line.distance if line else None
        row["copy_floor_ms"] = line.copy_floor_ms if line else None
        row["gflop_s"] = line.flop_s / 1e9 if line else None
        row["gbyte_s"] = line.byte_s / 1e9 if line and line.byte_s is not None else None
        row["peak_memory_mib"] = m.peak_memory_mib
        row["compile_seconds"] = m.compile_seconds
        row["energy_mj_per_image"] = 1e3 * m.energy.net_j / m.batch_size if m.energy else None
        row["energy_gross_mj_per_image"] = 1e3 * m.energy.gross_j / m.batch_size if m.energy else None
        rows.append(row)
    return pd.DataFrame(rows)
