"""What a race leaves: one measurement for each entry, and all of them as a table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import nn

from hrvit_lab.latency.compare import Estimate, Stop, Verdict, kept_rounds
from hrvit_lab.latency.energy import Energy
from hrvit_lab.latency.models import NamedModel, as_model, find_model
from hrvit_lab.latency.roofline import Ceilings, Roofline
from hrvit_lab.network.baselines import NetworkConfig

Status = Literal["ok", "wrong", "out of memory", "refused", "failed", "interrupted"]


@dataclass(frozen=True)
class Entry:
    """One competitor.

    Attributes:
        model: from ``find_model``, or any ``NamedModel``.
        backend: a key of ``BACKENDS``.
        dtype: of weights and input; float32 is IEEE arithmetic, never TF32.
    """

    model: NamedModel
    backend: str = "eager"
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """How it is told from the others in its race."""
        return f"{self.model.name}, {self.backend}, {self.dtype}"


def as_entry(
    competitor: Entry | nn.Module | NetworkConfig | str, *, seed: int = 0, resolution: tuple[int, int] | None = None
) -> Entry:
    """The entry itself; or, eager and in float32, a name as ``find_model`` takes it, a config, or any module.

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
    """What all competitors of a race share.

    Attributes:
        resolution: input height and width in pixels.
        batch_size: images a call.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        memory_format: ``"contiguous"``, a contiguous input, and weights as the model has them; or ``"channels_last"``.
        threads: torch's CPU threads; None keeps the present number.
        training: time a training step in place of inference: forward pass in training mode, mean square of the
            outputs as the loss, backward pass to fresh gradients; no optimiser.
    """

    resolution: tuple[int, int] = (224, 224)
    batch_size: int = 1
    device: str = "cpu"
    memory_format: str = "contiguous"
    threads: int | None = None
    training: bool = False


@dataclass(frozen=True)
class Measurement:
    """What one competitor left. Times are of the whole batch; None and empty mean: not measured.

    Attributes:
        model, backend, dtype: the entry's.
        resolution, batch_size, device, memory_format, threads, training: the setting's.
        device_name: the product's name.
        status: ``"ok"``, ``"wrong"`` (numerics; not timed), ``"out of memory"``, ``"refused"`` (the back end cannot),
            ``"failed"`` (it tried) or ``"interrupted"`` (timed, but cut short).
        reason: in words, if not ok.
        relative_error, tolerance: from the numerics gate: outputs, or gradients of a training step, against eager
            float32 of the plain network.
        compile_seconds: spent on compiling, capturing or exporting.
        steady: whether the warm-up became steady within its bounds. None: there was no time for enough calls to tell.
        disturbed: why the times should not be trusted, a sentence each (``engine.disturbances``).
        warmup_samples_ms: calls before the race.
        samples_ms: wall times, one a round, thrown-out rounds included.
        device_samples_ms: the same calls by CUDA events.
        cold_samples_ms: further calls by CUDA events, with the L2 cache overwritten before each.
        throttled: for each round what slowed the device down; ``kept_rounds`` says which rounds count.
        rounds_discarded: how many do not.
        latency: median wall time with its interval.
        against: the name of the reference.
        ratio: times as long as the reference, paired by round; None for the reference itself.
        verdict: what the ratio means.
        control: the ratio of the reference to itself in the same race: the method's own error.
        rounds_stopped, race_seconds: why the race ended, and after how long.
        macs: of the batch; three times as many in training.
        ceilings, roofline: what the device can do, and how far this is from it.
        energy: of a call, on a GPU with a meter.
        peak_memory_mib: of a call, eager only.
        conditions: clocks, heat, power, load, remarks and notes, over the race.
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
        """Short, for people; ``to_dict`` says everything."""
        times = f"{self.latency.value:.4g} ms [{self.latency.low:.4g}, {self.latency.high:.4g}]" if self.latency else ""
        ratio = f"{self.ratio.value:.3g} × {self.against} ({self.verdict})" if self.ratio else ""
        said = [self.name, "" if self.status == "ok" else f"{self.status}: {self.reason}", times, ratio]
        return f"Measurement({'; '.join(filter(None, said))})"

    @property
    def name(self) -> str:
        """The entry's name."""
        return f"{self.model}, {self.backend}, {self.dtype}"

    @property
    def throughput_img_s(self) -> float | None:
        """Images a second: batch size divided by median wall time."""
        return 1e3 * self.batch_size / self.latency.value if self.latency else None

    def statistics(self) -> dict[str, float | int | None]:
        """Figures of the rounds that count: rounds, throughput, and for each kind of time min, p10, p50, p90, p99."""
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
        """Everything as JSON knows it; estimates as value, low and high."""
        record = asdict(self) | {"name": self.name, **self.statistics()}
        for key in ("latency", "ratio", "control"):
            estimate: Estimate | None = getattr(self, key)
            record[key] = None if estimate is None else estimate._asdict()
        if self.relative_error == float("inf"):
            record["relative_error"] = None  # JSON has no infinity; the reason says what happened
        return record


def to_frame(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """One row a measurement, without raw samples; what was not measured is missing.

    Latencies are of the batch (``latency_ms`` is the median), energies of an image; ``disturbed`` says why a latency
    should not be trusted, and is empty if it can be; ``distance`` is from the floor of the matrix product ``ceiling``;
    ``ratio`` is to the reference ``against``, ``control_low`` to ``control_high`` the same for the reference against
    itself.
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
        row["throughput_img_s"] = figures["throughput_img_s"]
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
