"""Roofline: the measured limits of a device, and the latency of a network relative to them.

The ceiling is the fastest of several matrix products, because libraries differ: on the same CPU, one can reach less
than half the speed of another. The measured ceiling is a lower bound of what the device can reach. A network that is
faster than its floor therefore shows that the ceiling is too low, and a remark says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrvit_lab.latency.peak import cpu_peak
from hrvit_lab.latency.timing import Clock, Stopwatch, collect, cpu_stopwatch, cuda_stopwatch, primed
from hrvit_lab.latency.workload import DTYPES
from hrvit_lab.network.blocks.packed import PackedLinear
from hrvit_lab.network.pack import refusal

SIDES = {"cpu": (512, 1024, 2048, 4096), "cuda": (2048, 4096, 8192)}
"""Sides of the square matrices, in ascending order; large enough for products to be compute-bound."""

COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
"""Bytes to copy; much larger than any cache."""

CALLS = 3
"""Minimum number of timed calls of a product, after an untimed one; slow products are timed once."""


@dataclass(frozen=True)
class Product:
    """The measured speed of a matrix product.

    Attributes:
        product: a key of ``PRODUCTS``.
        side: of the square matrices.
        flop_s: floating-point operations per second (2 per multiply-accumulate).
    """

    product: str
    side: int
    flop_s: float


@dataclass(frozen=True)
class Ceilings:
    """Measured limits of the device for one number format and number of threads.

    Attributes:
        gemm_flop_s: floating-point operations per second of the fastest matrix product.
        copy_byte_s: bytes per second, read and written, of a large copy.
        gemm: the fastest matrix product.
        threads: number of CPU threads.
        tried: all products that were measured.
        peak_flop_s: published peak of as many CPU cores; None if it is unknown, as on a GPU.
        peak_formula: how the peak is computed, in words.
    """

    gemm_flop_s: float
    copy_byte_s: float
    gemm: Product | None = None
    threads: int = 0
    tried: tuple[Product, ...] = ()
    peak_flop_s: float | None = None
    peak_formula: str = ""

    @property
    def above_peak(self) -> bool:
        """Whether the product was faster than the published peak, which indicates a wrong timer."""
        return self.peak_flop_s is not None and self.gemm_flop_s > self.peak_flop_s


@dataclass(frozen=True)
class Roofline:
    """A latency relative to the limits of the device.

    Attributes:
        flop_s: achieved speed, 2 × MACs divided by latency.
        byte_s: achieved bandwidth, moved bytes divided by latency; None if the bytes are unknown.
        gemm_floor_ms: time of the MACs at the speed of the fastest matrix product.
        distance: latency divided by ``gemm_floor_ms``; 1 means that all time is arithmetic at full speed.
        copy_floor_ms: time of the moved bytes at the speed of the large copy; None if the bytes are unknown.
        winograd: whether the network has convolutions for which Winograd's algorithm needs fewer multiplications than
            are counted, so that a distance below 1 is possible. MACs are those of the network as published: a deployed
            SegFormer decoder needs fewer of them, too.
    """

    flop_s: float
    byte_s: float | None
    gemm_floor_ms: float
    distance: float
    copy_floor_ms: float | None
    winograd: bool = False


def roofline(
    latency_ms: float, macs: int, moved_bytes: int | None, ceilings: Ceilings, *, winograd: bool = False
) -> Roofline:
    """Relate a latency to the ceilings.

    Args:
        latency_ms: for the whole batch.
        macs: multiply-accumulates of the batch.
        moved_bytes: bytes that operators read and write for the batch, or None.
        ceilings: measured in the same run.
        winograd: see ``Roofline``.
    """
    seconds = latency_ms / 1e3
    floor_ms = 2e3 * macs / ceilings.gemm_flop_s
    return Roofline(
        flop_s=2 * macs / seconds,
        byte_s=None if moved_bytes is None else moved_bytes / seconds,
        gemm_floor_ms=floor_ms,
        distance=latency_ms / floor_ms,
        copy_floor_ms=None if moved_bytes is None else 1e3 * moved_bytes / ceilings.copy_byte_s,
        winograd=winograd,
    )


def has_winograd(model: nn.Module) -> bool:
    """Whether it has dense 3 × 3 convolutions with stride 1, to which Winograd's algorithm applies."""
    return any(
        isinstance(conv, nn.Conv2d) and (conv.kernel_size, conv.stride, conv.groups) == ((3, 3), (1, 1), 1)
        for conv in model.modules()
    )


def measure_ceilings(device: torch.device, dtype: str, *, clock: Clock, seconds: float = 2.0) -> Ceilings:
    """Time matrix products and a large copy, with torch's present number of threads.

    Args:
        dtype: a key of ``DTYPES``.
        seconds: time for all products together, after which no larger one is started; the copy takes a quarter of it.
    """
    tried = time_products(device, DTYPES[dtype], clock=clock, seconds=seconds)
    best = max(tried, key=lambda product: product.flop_s)
    size = COPY_BYTES[device.type]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    copy = primed(run := lambda: target.copy_(source), _stopwatch(run, device, clock))
    copy_s = _median_seconds(copy, 5, seconds / 4)
    threads = torch.get_num_threads()
    peak = cpu_peak(dtype, threads) if device.type == "cpu" else None
    return Ceilings(
        best.flop_s, 2 * size / copy_s, best, threads, tuple(tried),
        peak_flop_s=peak.flop_s if peak else None, peak_formula=peak.formula if peak else "",
    )  # fmt: skip


def time_products(device: torch.device, dtype: torch.dtype, *, clock: Clock, seconds: float) -> list[Product]:
    """Speeds of all ``PRODUCTS`` at the smallest of ``SIDES``, and at larger ones while there is time, the fastest
    product first. Each speed is that of the median call."""
    makers = {name: maker for name, maker in PRODUCTS.items() if maker is not packed or _packs(device, dtype)}
    sides = SIDES[device.type]
    share = seconds / (len(makers) * len(sides))
    tried: list[Product] = []
    began = clock()
    for side in sides:
        flop = 2 * side**3
        fastest = {name: max((p.flop_s for p in tried if p.product == name), default=0.0) for name in makers}
        for name in sorted(makers, key=lambda name: -fastest[name]):
            if fastest[name] and clock() - began + (1 + CALLS) * flop / fastest[name] > seconds:
                continue
            stopwatch = _stopwatch(makers[name](side, device, dtype), device, clock)
            first_s = _median_seconds(stopwatch, 1, 0.0)
            call_s = _median_seconds(stopwatch, CALLS if first_s < share else 1, share)
            tried.append(Product(name, side, flop / call_s))
    return tried


def mm(side: int, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    """``torch.mm`` into an existing output."""
    a, b, out = (_matrix(side, device, dtype) for _ in range(3))
    return lambda: torch.mm(a, b, out=out)


def linear(side: int, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    """``F.linear``, whose weight is transposed."""
    x, weight = _matrix(side, device, dtype), _matrix(side, device, dtype)
    return lambda: F.linear(x, weight)


def packed(side: int, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    """oneDNN's linear with a packed weight."""
    x, weight = _matrix(side, device, dtype), _matrix(side, device, dtype)
    module = PackedLinear(weight, None, x.shape)
    return lambda: module(x)


PRODUCTS: dict[str, Callable[[int, torch.device, torch.dtype], Callable[[], object]]] = {
    "torch.mm": mm,
    "F.linear": linear,
    "packed linear": packed,
}
"""Candidates for the ceiling: functions from side, device and number format to a call that multiplies two square
matrices."""


def _packs(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and refusal(dtype) is None


def _matrix(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(side, side) of noise: one tile repeated, because random numbers take longer than the product."""
    tile = torch.randn(min(side, 512), min(side, 512), device=device).to(dtype)
    return tile.repeat(side // len(tile), side // len(tile))


def _stopwatch(run: Callable[[], object], device: torch.device, clock: Clock) -> Stopwatch:
    return cuda_stopwatch(run, clock, device) if device.type == "cuda" else cpu_stopwatch(run, clock)


def _median_seconds(stopwatch: Stopwatch, min_runs: int, seconds: float) -> float:
    samples = collect(stopwatch, min_runs=min_runs, max_runs=100, max_seconds=seconds)
    return median(s.wall_ms if s.device_ms is None else s.device_ms for s in samples) / 1e3
