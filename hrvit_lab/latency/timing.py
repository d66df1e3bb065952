"""Time a call: stopwatches, warm-up, series of samples. This module is independent of models.

Only stopwatches read a clock. Everything else computes on the samples that they return, so that several competitors can
share one loop and tests can replace the clock.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import torch

from hrvit_lab.devices import check_threads

Clock = Callable[[], float]
"""Monotonic seconds, e.g. ``time.perf_counter``."""


class Sample(NamedTuple):
    """One timed call.

    Attributes:
        wall_ms: time on the host until the result is ready.
        device_ms: time between two CUDA events around the call, launch latency included; None on the CPU.
        cold_ms: device time of another call with a cold L2 cache; None if it was not measured.
    """

    wall_ms: float
    device_ms: float | None = None
    cold_ms: float | None = None


Stopwatch = Callable[[], Sample]
"""Makes one call and returns its time."""


def cpu_stopwatch(run: Callable[[], object], clock: Clock) -> Stopwatch:
    """A stopwatch for synchronous work."""

    def measure() -> Sample:
        start = clock()
        run()
        return Sample((clock() - start) * 1e3)

    return measure


def cuda_stopwatch(run: Callable[[], object], clock: Clock, device: torch.device) -> Stopwatch:
    """A stopwatch for work that ``run`` queues on ``device``'s current stream; measures host time and device time."""
    start_event, end_event = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def measure() -> Sample:
        torch.cuda.synchronize(device)
        start = clock()
        start_event.record(torch.cuda.current_stream(device))
        run()
        end_event.record(torch.cuda.current_stream(device))
        torch.cuda.synchronize(device)
        return Sample((clock() - start) * 1e3, start_event.elapsed_time(end_event))

    return measure


def primed(run: Callable[[], object], stopwatch: Stopwatch) -> Stopwatch:
    """Make an untimed call before each timed one.

    Without it, the caches would hold the data of the previous competitor, so that a latency would depend on the other
    entries of the race, and one that runs after its own control would appear faster.
    """

    def measure() -> Sample:
        run()
        return stopwatch()

    return measure


def with_cold_l2(warm: Stopwatch, cold: Stopwatch, flush: Callable[[], object]) -> Stopwatch:
    """A stopwatch that returns the times of ``warm``, and as ``cold_ms`` the device time of one more call after
    ``flush``.

    ``cold`` must not be primed, because an untimed call would fill the cache again.
    """

    def measure() -> Sample:
        sample = warm()
        flush()
        return sample._replace(cold_ms=cold().device_ms)

    return measure


def l2_flush(device: torch.device) -> Callable[[], object]:
    """A function that overwrites the whole L2 cache of a CUDA device."""
    cache_bytes = torch.cuda.get_device_properties(device).L2_cache_size
    return torch.empty(4 * max(cache_bytes, 2**20), dtype=torch.uint8, device=device).zero_


def is_steady(samples_ms: Sequence[float], *, window: int, tolerance: float) -> bool:
    """Whether the rolling median is constant.

    Steady means that the medians of ``window`` runs, at the last ``window`` + 1 positions, are within a factor of
    1 + ``tolerance`` of each other. A single slow run does not change a median; a trend does.

    Example:
        >>> is_steady([9.0, 5.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0], window=3, tolerance=0.05)
        False
        >>> is_steady([9.0, 5.0, 1.0, 1.0, 7.0, 1.0, 1.0, 1.0], window=3, tolerance=0.05)
        True
    """
    if len(samples_ms) < 2 * window:
        return False
    ends = range(len(samples_ms) - window, len(samples_ms) + 1)
    medians = [median(samples_ms[end - window : end]) for end in ends]
    return max(medians) <= (1 + tolerance) * min(medians)


def warm_up(
    measure: Stopwatch, *, window: int, tolerance: float, max_runs: int, max_seconds: float
) -> tuple[list[Sample], bool | None]:
    """Run until steady, or until ``max_runs`` or ``max_seconds`` (sum of measured times) is reached.

    Returns:
        The samples, and whether the last of them were steady; None if there are too few to tell.
    """
    samples: list[Sample] = []
    steady = False
    while not steady and len(samples) < max_runs and _seconds(samples) < max_seconds:
        samples.append(measure())
        steady = is_steady([sample.wall_ms for sample in samples], window=window, tolerance=tolerance)
    return samples, steady if len(samples) >= 2 * window else None


def collect(measure: Stopwatch, *, min_runs: int, max_runs: int, max_seconds: float) -> list[Sample]:
    """Collect at least ``min_runs`` samples, until ``max_runs`` or ``max_seconds`` (sum of measured times) is
    reached."""
    samples: list[Sample] = []
    while len(samples) < max_runs and (len(samples) < min_runs or _seconds(samples) < max_seconds):
        samples.append(measure())
    return samples


def _seconds(samples: Sequence[Sample]) -> float:
    return sum(sample.wall_ms for sample in samples) / 1e3


@contextmanager
def garbage_collector_paused() -> Iterator[None]:
    """Collect garbage once, then disable the collector; restores its state at exit."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def intra_op_threads(threads: int | None) -> Iterator[int]:
    """Set torch's number of CPU threads (None keeps it) and restore it at exit; yields the number.

    Raises:
        ConfigError: for a number that this machine does not support.
    """
    check_threads(threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
