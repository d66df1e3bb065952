"""The one timing loop: whatever is timed here is warmed up until steady, raced in rounds, and watched meanwhile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from hrvit_lab.latency.compare import Budget, Rounds, compare
from hrvit_lab.latency.conditions import POWER_LIMIT, Look, summarise, watch
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

UNSTEADY = "Never steady while warming up."


@dataclass(frozen=True)
class Warm:
    """A call that is ready to be timed.

    Attributes:
        call: what is timed.
        stopwatch: one turn of it: a call that warms the caches, a timed one, and on a GPU a third that finds its L2
            cache cold.
        warmup_ms: wall times of the turns before.
        steady: whether the last of them were steady; None if there was no time for enough of them to tell.
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


def watched(
    stopwatches: Mapping[str, Stopwatch],
    budget: Budget,
    device: torch.device,
    *,
    seed: int = 0,
    clock: Clock,
    nvml: Any = None,
    on_round: Callable[[int, float], object] = lambda rounds, half_width: None,
) -> tuple[Rounds, dict[str, Any]]:
    """Race, look at the device after every round, and return the rounds with the conditions that they ran under.

    Args:
        nvml: ``load_nvml()``, for a GPU's clocks, heat and power; None leaves them out, and a note says so.
    """
    observer = watch(device, nvml)
    looks: list[Look] = [observer.look()]

    def look_for_throttling() -> tuple[str, ...]:
        looks.append(observer.look())
        return looks[-1].throttled

    rounds = compare(
        stopwatches, budget, seed=seed, clock=clock, look_for_throttling=look_for_throttling, on_round=on_round
    )
    return rounds, summarise(looks, unknown=observer.unknown) | {"load_average_1min": psutil.getloadavg()[0]}


def disturbances(steady: bool | None, rounds: Rounds, conditions: dict[str, Any]) -> tuple[str, ...]:
    """Why a latency should not be trusted, a sentence each; empty if nothing was seen that disturbed it.

    This is the one definition of a disturbed measurement: a warm-up that never became steady, other programs or a
    virtual machine's host that took cores, other processes on the GPU, a device that was throttled most of the time.
    """
    said = [UNSTEADY] if steady is False else []
    forced = [set(rounds.throttled[index]) - {POWER_LIMIT} for index in rounds.kept]
    if count := sum(map(bool, forced)):
        reasons = ", ".join(sorted(set().union(*forced)))
        said.append(
            f"The device was throttled ({reasons}) in {count} of {len(forced)} rounds, which are kept: it is a "
            "throttled device's latency."
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
