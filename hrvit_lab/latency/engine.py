"""The timing loop of all latency measurements: warm-up until steady, then interleaved rounds on a monitored device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from hrvit_lab.latency.compare import Budget, Rounds, compare
from hrvit_lab.latency.conditions import POWER_LIMIT, Reading, monitor, summarise
from hrvit_lab.latency.timing import (
    Clock,
    Sample,
    Stopwatch,
    cpu_stopwatch,
    cuda_stopwatch,
    l2_flush,
    primed,
    warm_up,
    with_cold_l2,
)

STEADY_WINDOW = 5
STEADY_TOLERANCE = 0.05
MAX_WARMUP_CALLS = 200

UNSTEADY = "The warm-up did not become steady."


@dataclass(frozen=True)
class Warm:
    """A call that is warmed up.

    Attributes:
        call: the function to time.
        stopwatch: makes an untimed call that fills the caches, a timed call, and on a GPU a third call with a cold L2
            cache.
        warmup_ms: wall times during the warm-up.
        steady: whether the warm-up became steady; None if there were too few calls to tell.
    """

    call: Callable[[], Any]
    stopwatch: Stopwatch
    warmup_ms: tuple[float, ...]
    steady: bool | None


def warmed(call: Callable[[], Any], device: torch.device, *, clock: Clock, max_seconds: float) -> Warm:
    """Warm up a call that runs on ``device`` until it is steady, or for ``max_seconds``."""
    if device.type == "cpu":
        stopwatch = primed(call, cpu_stopwatch(call, clock))
    else:
        bare = cuda_stopwatch(call, clock, device)
        stopwatch = with_cold_l2(primed(call, bare), bare, l2_flush(device))
    samples, steady = warm_up(
        stopwatch, window=STEADY_WINDOW, tolerance=STEADY_TOLERANCE, max_runs=MAX_WARMUP_CALLS, max_seconds=max_seconds
    )
    return Warm(call, stopwatch, wall_times(samples), steady)


def run_rounds(
    stopwatches: Mapping[str, Stopwatch],
    budget: Budget,
    device: torch.device,
    *,
    seed: int = 0,
    clock: Clock,
    nvml: Any = None,
    on_round: Callable[[int, float], object] = lambda rounds, half_width: None,
) -> tuple[Rounds, dict[str, Any]]:
    """Time the competitors in rounds (``compare``), read the device's state after each, and return both.

    Args:
        nvml: ``load_nvml()``, for a GPU's clock rates, temperature and power; None skips them and adds a note.
    """
    device_monitor = monitor(device, nvml)
    readings: list[Reading] = [device_monitor.read()]

    def read_throttling() -> tuple[str, ...]:
        readings.append(device_monitor.read())
        return readings[-1].throttled

    rounds = compare(stopwatches, budget, seed=seed, clock=clock, read_throttling=read_throttling, on_round=on_round)
    return rounds, summarise(readings, unknown=device_monitor.unknown) | {"load_average_1min": psutil.getloadavg()[0]}


def disturbances(steady: bool | None, rounds: Rounds, conditions: dict[str, Any]) -> tuple[str, ...]:
    """Reasons why a latency is unreliable, one sentence each; empty if there are none.

    A measurement is disturbed if its warm-up did not become steady, if other programs or the host of a virtual machine
    took CPU time, if other processes used the GPU, or if the device was throttled in most rounds.
    """
    said = [UNSTEADY] if steady is False else []
    forced = [set(rounds.throttled[index]) - {POWER_LIMIT} for index in rounds.kept]
    if count := sum(map(bool, forced)):
        reasons = ", ".join(sorted(set().union(*forced)))
        said.append(
            f"The device was throttled ({reasons}) in {count} of {len(forced)} rounds; they are kept, so this is the "
            "latency of a throttled device."
        )
    return (*said, *conditions["remarks"])


def wall_times(samples: list[Sample]) -> tuple[float, ...]:
    """Wall times in milliseconds."""
    return tuple(sample.wall_ms for sample in samples)


def device_times(samples: list[Sample]) -> tuple[float, ...]:
    """Times by CUDA events in milliseconds; none on the CPU."""
    return tuple(sample.device_ms for sample in samples if sample.device_ms is not None)


def cold_times(samples: list[Sample]) -> tuple[float, ...]:
    """Times by CUDA events with a cold L2 cache, in milliseconds; none on the CPU."""
    return tuple(sample.cold_ms for sample in samples if sample.cold_ms is not None)
