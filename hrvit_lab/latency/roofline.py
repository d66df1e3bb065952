"""How far from the floor: what this device can do, measured in the same run, and what a network made of it."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from hrvit_lab.latency.timing import Clock, collect, cpu_stopwatch, cuda_stopwatch, primed
from hrvit_lab.latency.workload import DTYPES

GEMM_SIDE = {"cpu": 1024, "cuda": 8192}
"""Side of the square matrices: large enough to be bound by arithmetic, small enough to take milliseconds."""

COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
"""Size of what is copied: far beyond any cache."""


@dataclass(frozen=True)
class Ceilings:
    """What the device reached here, with this number format and these threads.

    Attributes:
        gemm_flop_s: floating-point operations a second of a large matrix product (an addition and a multiplication
            are two).
        copy_byte_s: bytes a second, read and written, of a large copy.
    """

    gemm_flop_s: float
    copy_byte_s: float


@dataclass(frozen=True)
class Roofline:
    """A latency beside its floors.

    Attributes:
        flop_s: achieved, 2 × MACs by latency.
        byte_s: achieved, moved bytes by latency; None where the bytes are not known.
        gemm_floor_ms: time of the MACs at the speed of the large matrix product.
        distance: latency by that floor; 1 would be all arithmetic at full speed.
        copy_floor_ms: time of the moved bytes at the speed of the large copy; None where they are not known.
    """

    flop_s: float
    byte_s: float | None
    gemm_floor_ms: float
    distance: float
    copy_floor_ms: float | None


def roofline(latency_ms: float, macs: int, moved_bytes: int | None, ceilings: Ceilings) -> Roofline:
    """Place a latency under its ceilings.

    Args:
        latency_ms: of the whole batch, as are the next two.
        macs: multiply-accumulates.
        moved_bytes: bytes that operators read and write, or None.
        ceilings: of the same run.
    """
    seconds = latency_ms / 1e3
    floor_ms = 2e3 * macs / ceilings.gemm_flop_s
    return Roofline(
        flop_s=2 * macs / seconds,
        byte_s=None if moved_bytes is None else moved_bytes / seconds,
        gemm_floor_ms=floor_ms,
        distance=latency_ms / floor_ms,
        copy_floor_ms=None if moved_bytes is None else 1e3 * moved_bytes / ceilings.copy_byte_s,
    )


def measure_ceilings(device: torch.device, dtype: str, *, clock: Clock, seconds: float = 0.5) -> Ceilings:
    """Time a large matrix product and a large copy: medians of warm calls, with torch's present threads.

    Args:
        dtype: a key of ``DTYPES``.
        seconds: for each of the two, at least five calls.
    """
    n = GEMM_SIDE[device.type]
    a, b, out = (torch.empty(n, n, device=device, dtype=DTYPES[dtype]).normal_() for _ in range(3))
    gemm_s = _median_seconds(lambda: torch.mm(a, b, out=out), device, clock, seconds)
    size = COPY_BYTES[device.type]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    copy_s = _median_seconds(lambda: target.copy_(source), device, clock, seconds)
    return Ceilings(2 * n**3 / gemm_s, 2 * size / copy_s)


def _median_seconds(run: Callable[[], object], device: torch.device, clock: Clock, seconds: float) -> float:
    stopwatch = cuda_stopwatch(run, clock, device) if device.type == "cuda" else cpu_stopwatch(run, clock)
    samples = collect(primed(run, stopwatch), min_runs=5, max_runs=100, max_seconds=seconds)
    return median(s.wall_ms if s.device_ms is None else s.device_ms for s in samples) / 1e3
