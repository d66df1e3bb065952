"""Latency of one model: the lab's race with no competitor but the A/A control.

The median is the figure, p10 and p90 its spread: a mean would follow whatever else the machine was doing.
"""

import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from hrvit_lab.config import as_size
from hrvit_lab.environment import environment
from hrvit_lab.errors import ConfigError
from hrvit_lab.latency.compare import CONTROL, Budget, Estimate, Stop, bootstrap_median, paired_ratio
from hrvit_lab.latency.conditions import load_nvml
from hrvit_lab.latency.engine import device_times, disturbances, wall_times, warmed, watched
from hrvit_lab.latency.models import as_model
from hrvit_lab.latency.timing import Clock, garbage_collector_paused, intra_op_threads
from hrvit_lab.latency.workload import device_name, ieee_float32, memory_errors_named, prepare
from hrvit_lab.network.baselines import NetworkConfig


@dataclass(frozen=True)
class LatencyResult:
    """Times of one model under one set of conditions. All times are of the whole batch.

    Attributes:
        samples_ms: wall time of every timed run that counts, in order, until the output is there.
        device_samples_ms: the same runs by CUDA events; empty on the CPU.
        discarded_samples_ms: runs in which the device was throttled, part of no statistic.
        warmup_samples_ms: wall times of the runs before, neither.
        steady: whether the warm-up became steady within its bounds. None: there was no time for enough runs to tell.
        disturbed: why the figures should not be trusted, a sentence each (``engine.disturbances``).
        latency: median wall time with its interval of 95 %.
        control: median ratio, run by run, to the same model timed a second time: the method's own error.
        stopped: why it ended: ``"precise"``, or a bound on ``"rounds"`` or ``"time"``.
        resolution: input height and width in pixels.
        batch_size: images a run.
        device: torch's name of it, e.g. ``"cuda:0"``.
        device_name: the product's name.
        dtype, memory_format: of weights and input.
        threads: torch's intra-op CPU threads.
        conditions: clocks, heat, power, load, remarks and notes, meanwhile.
        environment: versions, machine, commit, command, date.
    """

    samples_ms: tuple[float, ...]
    device_samples_ms: tuple[float, ...]
    discarded_samples_ms: tuple[float, ...]
    warmup_samples_ms: tuple[float, ...]
    steady: bool | None
    disturbed: tuple[str, ...]
    latency: Estimate
    control: Estimate
    stopped: Stop
    resolution: tuple[int, int]
    batch_size: int
    device: str
    device_name: str
    dtype: str
    memory_format: str
    threads: int
    conditions: dict[str, Any]
    environment: dict[str, Any]

    def __repr__(self) -> str:
        """Short, for people; ``to_dict`` says everything."""
        height, width = self.resolution
        return (
            f"LatencyResult({self.median_ms:.4g} ms [{self.latency.low:.4g}, {self.latency.high:.4g}], "
            f"{len(self.samples_ms)} runs, batch {self.batch_size} at {height}×{width}, {self.dtype}, "
            f"{self.threads} thread{'s' * (self.threads != 1)}, {self.device_name})"
        )

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
        """Images a second: batch size divided by median wall time."""
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
            "latency": self.latency._asdict(),
            "control": self.control._asdict(),
        }


def measure_latency(
    model: nn.Module | NetworkConfig | str,
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
    half_width: float = 0.01,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> LatencyResult:
    """Time a forward pass in eval and inference mode on seeded random input. A given module is left as it is.

    Args:
        model: any module from (B, C, H, W) to anything; or a config; or a name as the latency lab's command takes it:
            ``"hrvit_b1"``, ``"hrvit_b1:deploy"``, ``"mine.yaml"``, ``"timm:resnet50"``. Configs and names are built as
            the lab and the studies build them (``build_measurable``); a module is timed with the weights it has.
        resolution: input height and width in pixels; one number means square.
        batch_size: images a run.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``, of weights and input; float32 is IEEE, never TF32.
        memory_format: ``"contiguous"``, a contiguous input, and weights as the model has them; or
            ``"channels_last"``, both.
        threads: torch's CPU threads while timing; None keeps the present number.
        min_runs, max_runs: bounds on the number of timed runs. Each has an untimed one before it, and the control
            has as many.
        max_seconds: stop after this many seconds, but not before seven runs.
        max_warmup_seconds: stop warming up after this many seconds, steady or not.
        half_width: stop when the control's interval is narrower than this fraction to either side.
        seed: of the input, and of a named model's weights.
        clock: monotonic seconds.
    Raises:
        ConfigError: for a setting that does not exist, a device that is not present, or what is no model.
        OutOfDeviceMemory: if the workload does not fit; a smaller one is never measured in its place.
    """
    if not 3 <= min_runs <= max_runs:
        raise ConfigError(f"min_runs {min_runs} and max_runs {max_runs} must satisfy 3 ≤ min_runs ≤ max_runs")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}; use at least 1, or None for torch's present number")
    size = as_size(resolution)
    load = prepare(
        as_model(model, seed=seed, resolution=size),
        size,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        memory_format=memory_format,
        seed=seed,
    )
    budget = Budget(half_width, min_runs, max_runs, max_seconds)
    with (
        memory_errors_named(load.name),
        intra_op_threads(threads) as threads_used,
        ieee_float32(),
        torch.inference_mode(),
        garbage_collector_paused(),
    ):
        warm = warmed(lambda: load.model(load.images_BCHW), load.device, clock=clock, max_seconds=max_warmup_seconds)
        nvml = load_nvml() if load.device.type == "cuda" else None
        rounds, conditions = watched({"model": warm.stopwatch}, budget, load.device, seed=seed, clock=clock, nvml=nvml)
        if rounds.stopped == "interrupted":
            raise KeyboardInterrupt
        surroundings = environment()
    times = rounds.wall_ms("model")
    samples = rounds.samples["model"]
    height, width = load.images_BCHW.shape[-2:]
    return LatencyResult(
        samples_ms=tuple(times),
        device_samples_ms=device_times([samples[index] for index in rounds.kept]),
        discarded_samples_ms=wall_times([x for index, x in enumerate(samples) if index not in rounds.kept]),
        warmup_samples_ms=warm.warmup_ms,
        steady=warm.steady,
        disturbed=disturbances(warm.steady, rounds, conditions),
        latency=bootstrap_median(times),
        control=paired_ratio(rounds.wall_ms(CONTROL), times),
        stopped=rounds.stopped,
        resolution=(height, width),
        batch_size=batch_size,
        device=str(load.device),
        device_name=device_name(load.device),
        dtype=dtype,
        memory_format=memory_format,
        threads=threads_used,
        conditions=conditions,
        environment=surroundings,
    )
