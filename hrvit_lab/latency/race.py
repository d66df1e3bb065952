"""Compare latencies: models × back ends × number formats under one setting, with one measurement for each.

The steps are: numerics gate, warm-up until steady, interleaved rounds with an A/A control, energy. An entry that does
not fit into memory, has wrong outputs or cannot run also gets a measurement, with the reason and without times.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from hrvit_lab.config import as_size
from hrvit_lab.cost.count import UncountedOperator, count
from hrvit_lab.environment import environment
from hrvit_lab.errors import ConfigError
from hrvit_lab.latency.backends import BACKENDS, find_backend
from hrvit_lab.latency.compare import (
    CONTROL,
    FEWEST_ROUNDS,
    Budget,
    Estimate,
    Rounds,
    bootstrap_median,
    judge,
    paired_ratio,
)
from hrvit_lab.latency.conditions import NoNvml
from hrvit_lab.latency.energy import Energy, energy_per_call, idle_power, nvml_meter
from hrvit_lab.latency.engine import cold_times, device_times, disturbances, run_rounds, wall_times
from hrvit_lab.latency.measurement import Entry, Measurement, Setting, as_entry
from hrvit_lab.latency.ready import NotTimed, Ready, make_ready, steps_of
from hrvit_lab.latency.roofline import Ceilings, has_winograd, measure_ceilings, roofline
from hrvit_lab.latency.steps import Report, Steps
from hrvit_lab.latency.timing import Clock, garbage_collector_paused, intra_op_threads
from hrvit_lab.latency.workload import (
    DTYPES,
    MEMORY_FORMATS,
    device_name,
    find_timed_device,
    ieee_float32,
)
from hrvit_lab.network.baselines import NetworkConfig
from hrvit_lab.network.model import HRViT

TRAINING_MACS = 3
"""MACs of a training step divided by those of inference: the backward pass has two products for each of the forward
pass."""

ENERGY_SECONDS = 3.0
IDLE_SECONDS = 2.0
CEILING_SECONDS = 4.0
"""Approximate upper bound on the time of ``measure_ceilings`` for one number format."""

RACE, IDLE = "race", "power of the idle device"


def race(
    competitors: Sequence[Entry | nn.Module | NetworkConfig | str],
    setting: Setting | int | tuple[int, int] = 224,
    budget: Budget | None = None,
    *,
    seed: int = 0,
    max_warmup_seconds: float = 10.0,
    clock: Clock = time.perf_counter,
    nvml: Any = None,
    report: Report = lambda step: None,
) -> list[Measurement]:
    """Time competitors and compare each with the first, the reference.

    Args:
        competitors: entries; or names as ``hrvit-lab latency`` takes them (``"hrvit_b1:deploy"``, ``"mine.yaml"``,
            ``"timm:resnet50"``), configs and modules, which run eagerly in float32. All must differ.
        setting: shared by all; a resolution in pixels means ``Setting(resolution)``.
        budget: stopping rule; None takes the defaults.
        seed: of the input, of the order within rounds, and of the weights of named models and configs.
        max_warmup_seconds: bound on the warm-up of each competitor.
        clock: monotonic seconds.
        nvml: ``load_nvml()``, for clock rates and energy of a GPU; None skips them and adds a note.
        report: called with the current ``Step``.
    Returns:
        One measurement per competitor, in their order. If the first cannot be timed, the next that can be is the
        reference. After Ctrl-C during the rounds, the measurements so far have status ``"interrupted"``.
    Raises:
        ConfigError: for an unknown setting, a device that is not available, or a back end without its package.
        KeyboardInterrupt: on Ctrl-C before there are enough rounds.
    """
    if not isinstance(setting, Setting):
        setting = Setting(as_size(setting))
    entries = [as_entry(competitor, seed=seed, resolution=setting.resolution) for competitor in competitors]
    device = _validate(entries, setting)
    budget = budget or Budget()
    steps = Steps(race_steps(entries, setting, budget, max_warmup_seconds, nvml), report)
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
        for dtype in dict.fromkeys(entry.dtype for entry in entries):  # first, while there is enough memory
            steps.at(_ceilings_step(dtype))
            with torch.inference_mode():
                ceilings[dtype] = measure_ceilings(device, dtype, clock=clock)
        ready: list[Ready] = []
        results: dict[str, Measurement] = {}
        references: dict[int, list[Tensor]] = {}
        for entry in entries:
            try:
                ready.append(make_ready(entry, setting, device, references, seed, max_warmup_seconds, clock, steps))
            except NotTimed as stopped:
                finding = stopped.finding
                results[entry.name] = Measurement(
                    entry.model.name, entry.backend, entry.dtype, **facts, status=stopped.status, reason=stopped.reason,
                    relative_error=finding.relative_error if finding else None,
                    tolerance=finding.tolerance if finding else None,
                )  # fmt: skip
        references.clear()
        if ready:
            for result in _timed(ready, setting, facts, ceilings, device, budget, seed, clock, nvml, steps):
                results[result.name] = result
    return [results[entry.name] for entry in entries]


def race_steps(
    entries: Sequence[Entry], setting: Setting, budget: Budget, max_warmup_seconds: float = 10.0, nvml: Any = None
) -> dict[str, float]:
    """The steps of ``race``, in order, with the upper bound of each in seconds."""
    steps = {_ceilings_step(entry.dtype): CEILING_SECONDS for entry in entries}
    for entry in entries:
        steps |= steps_of(entry, max_warmup_seconds)
    steps[RACE] = budget.max_seconds
    if setting.device != "cpu" and nvml is not None and not isinstance(nvml, NoNvml):
        steps[IDLE] = IDLE_SECONDS
        steps |= {_energy_step(entry): ENERGY_SECONDS for entry in entries}
    return steps


def _ceilings_step(dtype: str) -> str:
    return f"ceilings in {dtype}: matrix products and a copy"


def _energy_step(entry: Entry) -> str:
    return f"{entry.name}: energy"


def _validate(entries: Sequence[Entry], setting: Setting) -> torch.device:
    """Check the request and return the device; raises a ConfigError if it is invalid."""
    if not entries:
        raise ConfigError("there is nothing to time; give at least one model")
    names = [entry.name for entry in entries]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{twice[0]} is given twice; give it once, an A/A control is always included")
    for entry in entries:
        find_backend(entry.backend)
        if entry.dtype not in DTYPES:
            raise ConfigError(f"dtype {entry.dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    if setting.memory_format not in MEMORY_FORMATS:
        raise ConfigError(f"memory_format {setting.memory_format!r} is unknown; use one of {', '.join(MEMORY_FORMATS)}")
    for name in ("batch_size", "threads"):
        if (number := getattr(setting, name)) is not None and number < 1:
            raise ConfigError(f"{name} is {number}; use at least 1")
    for entry in entries:
        if isinstance(entry.model.plain, HRViT):
            entry.model.plain.config.check_resolution(setting.resolution)
    return find_timed_device(setting.device)


def _timed(
    ready: Sequence[Ready],
    setting: Setting,
    facts: dict[str, Any],
    ceilings: dict[str, Ceilings],
    device: torch.device,
    budget: Budget,
    seed: int,
    clock: Clock,
    nvml: Any,
    steps: Steps,
) -> list[Measurement]:
    """Run the rounds, then measure energy."""

    def on_round(rounds: int, half_width: float) -> None:
        width = f", widest interval ±{half_width:.1%}" if half_width < float("inf") else ""
        steps.at(RACE, f"round {rounds} of {len(ready)} entries and the A/A control{width}")

    calls_ms = [median(competitor.warm.warmup_ms or (0.0,)) for competitor in ready]
    shortest = 2e-3 * FEWEST_ROUNDS * (sum(calls_ms) + calls_ms[0])  # each call follows an untimed one
    steps.at(RACE, seconds=max(budget.max_seconds, shortest))
    reference = ready[0].entry.name
    with torch.inference_mode(not setting.training), garbage_collector_paused():
        rounds, conditions = run_rounds(
            {competitor.entry.name: competitor.warm.stopwatch for competitor in ready}, budget, device, seed=seed,
            clock=clock, nvml=nvml, on_round=on_round,
        )  # fmt: skip
        if len(rounds.throttled) < min(FEWEST_ROUNDS, budget.min_rounds):
            raise KeyboardInterrupt
        energies = _energies(ready, device, nvml, rounds, clock, steps)

    base = rounds.wall_ms(reference)
    control = paired_ratio(rounds.wall_ms(CONTROL), base)
    return [
        _measurement(
            competitor, rounds, reference, base, control, facts, ceilings[competitor.entry.dtype], conditions, energy
        )
        for competitor, energy in zip(ready, energies, strict=True)
    ]


def _energies(
    ready: Sequence[Ready],
    device: torch.device,
    nvml: Any,
    rounds: Rounds,
    clock: Clock,
    steps: Steps,
) -> list[Energy | None]:
    meter = nvml_meter(device, nvml) if device.type == "cuda" else None
    if meter is None or rounds.stopped == "interrupted":
        return [None] * len(ready)
    steps.at(IDLE)
    torch.cuda.synchronize(device)
    idle_w = idle_power(meter, seconds=IDLE_SECONDS, clock=clock)
    energies: list[Energy | None] = []
    for competitor in ready:
        steps.at(_energy_step(competitor.entry))
        energies.append(
            energy_per_call(
                competitor.warm.call, lambda: torch.cuda.synchronize(device), meter, idle_w=idle_w,
                seconds=ENERGY_SECONDS, clock=clock,
            )
        )  # fmt: skip
    return energies


def _measurement(
    competitor: Ready,
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
        reason="stopped by Ctrl-C before all intervals were narrow" if interrupted else "",
        relative_error=competitor.finding.relative_error,
        tolerance=competitor.finding.tolerance,
        compile_seconds=competitor.compile_seconds,
        steady=competitor.warm.steady,
        disturbed=disturbances(competitor.warm.steady, rounds, conditions),
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
        roofline=None
        if macs is None or BACKENDS[entry.backend].arithmetic  # the ceilings are those of ``entry.dtype``
        else roofline(latency.value, macs, moved_bytes, ceilings, winograd=has_winograd(entry.model.module)),
        energy=energy,
        peak_memory_mib=competitor.peak_memory_mib,
        conditions=conditions,
    )


def _work(entry: Entry, resolution: tuple[int, int], batch_size: int, training: bool) -> tuple[int | None, int | None]:
    """MACs and moved bytes of a batch of the plain network; None where they are unknown."""
    plain = entry.model.plain
    try:
        counts = count(plain, resolution)
    except UncountedOperator:
        return None, None
    macs = counts.macs * batch_size * (TRAINING_MACS if training else 1)
    known = isinstance(plain, HRViT) and not training
    return macs, counts.moved_bytes(batch_size, entry.dtype) if known else None
