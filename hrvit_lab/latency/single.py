"""Latency of one model: a race of the model and its A/A control.

The latency is the median, with p10 and p90 as its spread; a mean would depend on other load of the machine.
"""

import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from hrvit_lab.config import as_size
from hrvit_lab.environment import environment
from hrvit_lab.errors import ConfigError
from hrvit_lab.latency.compare import CONTROL, Budget, Stop, bootstrap_median, paired_ratio
from hrvit_lab.latency.conditions import load_nvml
from hrvit_lab.latency.engine import device_times, disturbances, run_rounds, wall_times, warmed
from hrvit_lab.latency.estimate import Estimate
from hrvit_lab.latency.models import as_model
from hrvit_lab.latency.timing import Clock
from hrvit_lab.latency.workload import device_name, prepare, timed_inference
from hrvit_lab.network.baselines import NetworkConfig


@dataclass(frozen=True)
class LatencyResult:
    """Times of one model. All times are for the whole batch.

    Attributes:
        samples_ms: wall time of every kept run, in order, until the output is ready.
        device_samples_ms: times of the same runs by CUDA events; empty on the CPU.
        discarded_samples_ms: wall times of runs in which the device was throttled; not part of any statistic.
        warmup_samples_ms: wall times of the warm-up; not part of any statistic.
        steady: whether the warm-up became steady; None if there were too few runs to tell.
        disturbed: reasons why the figures are unreliable, one sentence each (``engine.disturbances``).
        latency: median wall time with its 95 % interval.
        control: median ratio, run by run, to the same model timed a second time: the error of the method.
        stopped: why it ended: ``"precise"``, or a bound on ``"rounds"`` or ``"time"``.
        resolution: input height and width in pixels.
        batch_size: images per run.
        device: torch's name of the device, e.g. ``"cuda:0"``.
        device_name: product name of the device.
        dtype, memory_format: of weights and input.
        threads: torch's intra-op CPU threads.
        conditions: clock rates, temperature, power, load, remarks and notes during the measurement.
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
        """A short text; ``to_dict`` has all values."""
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
        """Images per second: batch size divided by median wall time."""
        return 1e3 * self.batch_size / self.median_ms

    def to_dict(self) -> dict[str, object]:
        """All values as JSON types: statistics, settings and raw samples."""
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
    """Time a forward pass in eval and inference mode on seeded random input.

    Args:
        model: any module that takes (B, C, H, W); or a config; or a name as ``hrvit-lab latency`` takes it:
            ``"hrvit_b1"``, ``"hrvit_b1:deploy"``, ``"mine.yaml"``, ``"timm:resnet50"``. Configs and names are built
            with random weights (``build_measurable``). A module is timed with its own weights, and is not changed.
        resolution: input height and width in pixels; one number means square.
        batch_size: images per run.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``, of weights and input; float32 is IEEE, without TF32.
        memory_format: ``"contiguous"`` for a contiguous input and unchanged weights, or ``"channels_last"`` for both.
        threads: torch's CPU threads during the measurement; None keeps the present number.
        min_runs, max_runs: bounds on the number of timed runs. Each timed run follows an untimed one. The control has
            as many runs.
        max_seconds: stop after this many seconds, but not before seven runs.
        max_warmup_seconds: stop the warm-up after this many seconds.
        half_width: stop when the half-width of the control's interval is below this fraction.
        seed: of the input, and of the weights of named models and configs.
        clock: monotonic seconds.
    Returns:
        Times in milliseconds for the whole batch, with the conditions of the measurement.
    Raises:
        ConfigError: for an unknown setting, a device that is not available, or an invalid ``model``.
        OutOfDeviceMemory: if the batch does not fit into memory; it is never reduced.
    """
    if not 3 <= min_runs <= max_runs:
        raise ConfigError(f"min_runs {min_runs} and max_runs {max_runs} must satisfy 3 ≤ min_runs ≤ max_runs")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}; use at least 1, or None to keep torch's present number")
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
    with timed_inference(load.name, threads) as threads_used:
        warm = warmed(lambda: load.model(load.images_BCHW), load.device, clock=clock, max_seconds=max_warmup_seconds)
        nvml = load_nvml() if load.device.type == "cuda" else None
        rounds, conditions = run_rounds(
            {"model": warm.stopwatch}, budget, load.device, seed=seed, clock=clock, nvml=nvml
        )
        if rounds.stopped == "interrupted":
            raise KeyboardInterrupt
        run_environment = environment()
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
        environment=run_environment,
    )
