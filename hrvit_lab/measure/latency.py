"""Latency of a forward pass: warm up until steady, then keep every sample.

The median is the figure, p10 and p90 its spread: a mean would follow whatever else the machine was doing.
"""

import time
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from hrvit_lab.measure.environment import versions
from hrvit_lab.measure.timing import (
    Clock,
    collect,
    cpu_stopwatch,
    cuda_stopwatch,
    garbage_collector_paused,
    intra_op_threads,
    warm_up,
)
from hrvit_lab.measure.workload import device_name, memory_errors_named, prepare

STEADY_WINDOW = 5
STEADY_TOLERANCE = 0.05
MAX_WARMUP_RUNS = 200


@dataclass(frozen=True)
class LatencyResult:
    """Times of one model under one set of conditions. All times are of the whole batch.

    Attributes:
        samples_ms: wall time of every timed run, in order, until the output is there.
        device_samples_ms: the same runs by CUDA events; empty on the CPU.
        warmup_samples_ms: wall times of the runs before, not part of any statistic.
        steady: whether the warm-up became steady within its bounds; if not, distrust the figures.
        resolution: input height and width in pixels.
        batch_size: images a run.
        device: torch's name of it, e.g. ``"cuda:0"``.
        device_name: the product's name.
        dtype, memory_format: of weights and input.
        threads: torch's intra-op CPU threads.
        versions: of Python, torch and the rest.
    """

    samples_ms: tuple[float, ...]
    device_samples_ms: tuple[float, ...]
    warmup_samples_ms: tuple[float, ...]
    steady: bool
    resolution: tuple[int, int]
    batch_size: int
    device: str
    device_name: str
    dtype: str
    memory_format: str
    threads: int
    versions: dict[str, str]

    def percentile_ms(self, q: float) -> float:
        """The ``q``-th percentile of the wall times, ``0 ≤ q ≤ 100``, linear between samples."""
        return float(np.percentile(self.samples_ms, q))

    @cached_property
    def median_ms(self) -> float:
        """Median wall time of a run: the latency."""
        return self.percentile_ms(50)

    @property
    def device_median_ms(self) -> float | None:
        """Median device time of a run; None on the CPU."""
        return float(np.median(self.device_samples_ms)) if self.device_samples_ms else None

    @property
    def throughput_img_s(self) -> float:
        """Images a second: batch size by median wall time."""
        return 1e3 * self.batch_size / self.median_ms

    def to_dict(self) -> dict[str, object]:
        """Everything, statistics and raw samples, as JSON knows it."""
        percentiles = {f"p{q}_ms": self.percentile_ms(q) for q in (10, 50, 90, 99)}
        return {
            "median_ms": self.median_ms,
            "min_ms": min(self.samples_ms),
            **percentiles,
            "device_median_ms": self.device_median_ms,
            "throughput_img_s": self.throughput_img_s,
            "runs": len(self.samples_ms),
            "warmup_runs": len(self.warmup_samples_ms),
            **asdict(self),
        }


def measure_latency(
    model: nn.Module,
    resolution: int | tuple[int, int] = 224,
    *,
    batch_size: int = 1,
    device: str = "cpu",
    dtype: str = "float32",
    memory_format: str = "contiguous",
    threads: int | None = None,
    min_runs: int = 10,
    max_runs: int = 200,
    max_seconds: float = 5.0,
    max_warmup_seconds: float = 5.0,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> LatencyResult:
    """Time a forward pass in eval and inference mode on seeded random input. ``model`` is left as it is.

    Args:
        model: any module from (B, C, H, W) to anything.
        resolution: input height and width in pixels; one number means square.
        batch_size: images a run.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``, of weights and input.
        memory_format: ``"contiguous"``, a contiguous input, and weights as the model has them; or
            ``"channels_last"``, both.
        threads: torch's CPU threads while timing; None keeps the present number.
        min_runs, max_runs: bounds on the number of timed runs.
        max_seconds: stop timing after this many seconds, but not before ``min_runs``.
        max_warmup_seconds: stop warming up after this many seconds, steady or not.
        seed: of the input.
        clock: monotonic seconds.
    Raises:
        ValueError: for a setting that does not exist or a device that is not present.
        OutOfDeviceMemory: if the workload does not fit; a smaller one is never measured in its place.
    """
    if not 1 <= min_runs <= max_runs:
        raise ValueError(f"min_runs {min_runs} and max_runs {max_runs} must satisfy 1 ≤ min_runs ≤ max_runs")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; use at least 1, or None for torch's present number")
    load = prepare(
        model,
        resolution,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        memory_format=memory_format,
        seed=seed,
    )

    def run() -> None:
        load.model(load.images_BCHW)

    on_cuda = load.device.type == "cuda"
    measure = cuda_stopwatch(run, clock, load.device) if on_cuda else cpu_stopwatch(run, clock)
    with (
        memory_errors_named(load.name),
        intra_op_threads(threads) as threads_used,
        torch.inference_mode(),
        garbage_collector_paused(),
    ):
        warmup, steady = warm_up(
            measure,
            window=STEADY_WINDOW,
            tolerance=STEADY_TOLERANCE,
            max_runs=MAX_WARMUP_RUNS,
            max_seconds=max_warmup_seconds,
        )
        samples = collect(measure, min_runs=min_runs, max_runs=max_runs, max_seconds=max_seconds)
    height, width = load.images_BCHW.shape[-2:]
    return LatencyResult(
        samples_ms=tuple(sample.wall_ms for sample in samples),
        device_samples_ms=tuple(sample.device_ms for sample in samples if sample.device_ms is not None),
        warmup_samples_ms=tuple(sample.wall_ms for sample in warmup),
        steady=steady,
        resolution=(height, width),
        batch_size=batch_size,
        device=str(load.device),
        device_name=device_name(load.device),
        dtype=dtype,
        memory_format=memory_format,
        threads=threads_used,
        versions=versions(),
    )
