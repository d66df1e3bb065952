"""The result of a race: one measurement for each entry, and all of them as a table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import nn

from hrvit_lab.files import guarded
from hrvit_lab.latency.compare import Stop, Verdict, kept_rounds
from hrvit_lab.latency.energy import Energy
from hrvit_lab.latency.estimate import Estimate
from hrvit_lab.latency.models import NamedModel, as_model, find_model
from hrvit_lab.latency.roofline import Ceilings, Roofline
from hrvit_lab.network.baselines import NetworkConfig

Status = Literal["ok", "wrong", "out of memory", "refused", "failed", "interrupted"]


@dataclass(frozen=True)
class Entry:
    """One competitor of a race.

    Attributes:
        model: from ``find_model``, or any ``NamedModel``.
        backend: a key of ``BACKENDS``.
        dtype: of weights and input; float32 is IEEE arithmetic, without TF32.
    """

    model: NamedModel
    backend: str = "eager"
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """Its name, unique within a race."""
        return f"{self.model.name}, {self.backend}, {self.dtype}"


def as_entry(
    competitor: Entry | nn.Module | NetworkConfig | str, *, seed: int = 0, resolution: tuple[int, int] | None = None
) -> Entry:
    """Convert to an ``Entry``: a name (``find_model``), a config or a module becomes an eager float32 entry.

    Raises:
        ConfigError: if it is none of these, or there is no model of that name.
    """
    if isinstance(competitor, Entry):
        return competitor
    if isinstance(competitor, str):
        return Entry(find_model(competitor, seed=seed, resolution=resolution))
    model = as_model(competitor, seed=seed, resolution=resolution)
    is_config = isinstance(competitor, NetworkConfig)
    name = competitor.name or competitor.id if is_config else type(model).__name__
    return Entry(NamedModel(str(name), model, model))


@dataclass(frozen=True)
class Setting:
    """The settings that all competitors of a race share.

    Attributes:
        resolution: input height and width in pixels.
        batch_size: images per call.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        memory_format: ``"contiguous"`` for a contiguous input and unchanged weights, or ``"channels_last"`` for both.
        threads: torch's CPU threads; None keeps the present number.
        training: time a training step instead of inference: forward pass in training mode, mean square of the outputs
            as the loss, backward pass to new gradients; no optimizer.
    """

    resolution: tuple[int, int] = (224, 224)
    batch_size: int = 1
    device: str = "cpu"
    memory_format: str = "contiguous"
    threads: int | None = None
    training: bool = False


@dataclass(frozen=True)
class Measurement:
    """The result of one competitor. Times are for the whole batch; None and empty mean not measured.

    Attributes:
        model, backend, dtype: of the entry.
        resolution, batch_size, device, memory_format, threads, training: of the setting.
        device_name: product name of the device.
        status: ``"ok"``, ``"wrong"`` (outputs differ; not timed), ``"out of memory"``, ``"refused"`` (not supported by
            the back end), ``"failed"`` (the back end raised) or ``"interrupted"`` (timed, but stopped early).
        reason: explanation of a status other than ok.
        relative_error, tolerance: from the numerics gate: outputs, or gradients of a training step, compared with the
            plain network in eager float32.
        compile_seconds: time for compiling, capturing or exporting.
        steady: whether the warm-up became steady; None if there were too few calls to tell.
        disturbed: reasons why the times are unreliable, one sentence each (``engine.disturbances``).
        warmup_samples_ms: wall times of the warm-up.
        samples_ms: wall times, one per round, discarded rounds included.
        device_samples_ms: times of the same calls by CUDA events.
        cold_samples_ms: times of additional calls by CUDA events, each with a cold L2 cache.
        throttled: for each round, the reasons for throttling; ``kept_rounds`` decides which rounds are kept.
        rounds_discarded: number of discarded rounds.
        latency: median wall time with its interval.
        against: name of the reference.
        ratio: time divided by that of the reference, paired by round; None for the reference itself.
        verdict: faster, slower or a tie (``compare.judge``).
        control: the same ratio for the reference's second entry: the error of the method.
        rounds_stopped, race_seconds: why the race ended, and its duration.
        macs: multiply-accumulates of the batch; three times those of inference in training.
        ceilings, roofline: measured limits of the device, and the latency relative to them.
        energy: of a call, on a GPU with an energy counter.
        peak_memory_mib: of a call, eager only.
        conditions: clock rates, temperature, power, load, remarks and notes during the race.
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
    disturbed: tuple[str, ...] = ()
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

    def __repr__(self) -> str:
        """A short text; ``to_dict`` has all values."""
        times = f"{self.latency.value:.4g} ms [{self.latency.low:.4g}, {self.latency.high:.4g}]" if self.latency else ""
        ratio = f"{self.ratio.value:.3g} × {self.against} ({self.verdict})" if self.ratio else ""
        said = [self.name, "" if self.status == "ok" else f"{self.status}: {self.reason}", times, ratio]
        return f"Measurement({'; '.join(filter(None, said))})"

    @property
    def name(self) -> str:
        """Name of the entry."""
        return f"{self.model}, {self.backend}, {self.dtype}"

    @property
    def throughput_img_s(self) -> float | None:
        """Images per second: batch size divided by median wall time."""
        return 1e3 * self.batch_size / self.latency.value if self.latency else None

    def statistics(self) -> dict[str, float | int | None]:
        """Statistics of the kept rounds: rounds, throughput, and min, p10, p50, p90, p99 of each kind of time."""
        kept = kept_rounds(self.throttled)
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
        """All values as JSON types; estimates as value, low and high."""
        record = asdict(self) | {"name": self.name, **self.statistics()}
        for key in ("latency", "ratio", "control"):
            estimate: Estimate | None = getattr(self, key)
            record[key] = None if estimate is None else estimate._asdict()
        if self.relative_error == float("inf"):
            record["relative_error"] = None  # JSON has no infinity; ``reason`` explains
        return record


def to_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV, each cell `guarded` (names of networks are names of files)."""
    return frame.map(guarded).to_csv(index=False, lineterminator="\n")


def to_frame(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """One row per measurement, without raw samples; values that were not measured are missing.

    Latencies and MACs are for the batch (``latency_ms`` is the median), energies for an image. ``disturbed`` has the
    reasons why a latency is unreliable, or is empty. ``distance`` is latency divided by ``gemm_floor_ms``, the time of
    the network's MACs at the speed of the matrix product ``ceiling``. ``ratio`` is latency divided by that of the
    reference ``against``; ``control`` is the same ratio for the reference's second entry.
    """
    rows = []
    for m in measurements:
        figures = m.statistics()
        row: dict[str, Any] = {
            "model": m.model, "backend": m.backend, "dtype": m.dtype, "height": m.resolution[0],
            "width": m.resolution[1], "batch_size": m.batch_size, "training": m.training, "device": m.device_name,
            "threads": m.threads, "memory_format": m.memory_format, "status": m.status, "reason": m.reason,
            "relative_error": m.relative_error, "rounds": figures["rounds"], "rounds_discarded": m.rounds_discarded,
            "steady": m.steady, "disturbed": " ".join(m.disturbed), "latency_ms": figures["latency_p50_ms"],
        }  # fmt: skip
        row |= {f"latency_ms_{q}": figures[f"latency_{q}_ms"] for q in ("min", "p10", "p90", "p99")}
        row |= {f"{kind}_latency_ms": figures[f"{kind}_p50_ms"] for kind in ("device", "cold")}
        row["throughput_img_s"], row["macs"] = figures["throughput_img_s"], m.macs
        row["against"], row["verdict"] = m.against, m.verdict
        row |= dict(zip(("ratio", "ratio_low", "ratio_high"), m.ratio or (None,) * 3, strict=True))
        row |= dict(zip(("control", "control_low", "control_high"), m.control or (None,) * 3, strict=True))
        line = m.roofline
        row["gemm_floor_ms"] = line.gemm_floor_ms if line else None
        row["distance"] = line.distance if line else None
        row["copy_floor_ms"] = line.copy_floor_ms if line else None
        row["gflop_s"] = line.flop_s / 1e9 if line else None
        row["ceiling"] = f"{m.ceilings.gemm.product}, {m.ceilings.gemm.side}" if m.ceilings and m.ceilings.gemm else ""
        row["ceiling_gflop_s"] = m.ceilings.gemm_flop_s / 1e9 if m.ceilings else None
        row["gbyte_s"] = line.byte_s / 1e9 if line and line.byte_s is not None else None
        row["peak_memory_mib"] = m.peak_memory_mib
        row["compile_seconds"] = m.compile_seconds
        row["energy_mj_per_image"] = 1e3 * m.energy.net_j / m.batch_size if m.energy else None
        row["energy_gross_mj_per_image"] = 1e3 * m.energy.gross_j / m.batch_size if m.energy else None
        rows.append(row)
    return pd.DataFrame(rows)
