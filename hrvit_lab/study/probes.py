"""Probes: from a config to the numbers of one trial.

A probe returns one flat dict: metric keys (and their spread, ``SPREAD``) with numbers in base units, and
what is kept beside them under ``samples`` or ``curves``. It raises what goes wrong; whoever runs trials
records it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from hrvit_lab.cost.count import count
from hrvit_lab.latency.memory import measure_peak_memory
from hrvit_lab.latency.models import build_measurable
from hrvit_lab.latency.single import measure_latency
from hrvit_lab.network.baselines import NetworkConfig, build_network
from hrvit_lab.network.seeding import seeded
from hrvit_lab.train.data import load_dataset
from hrvit_lab.train.loop import fit
from hrvit_lab.train.options import TrainOptions


@dataclass(frozen=True)
class ProbeInput:
    """What a trial is asked to measure, picklable.

    Attributes:
        config: the network.
        resolution: height and width of the input in pixels, for costs and clocks.
        seed: of initial weights and training.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        data: arguments of ``load_dataset``: ``name``, ``resolution`` and, for files elsewhere, ``root``.
        train: fields of ``TrainOptions``.
        latency: arguments of ``measure_latency`` beside model, resolution and device.
    """

    config: NetworkConfig
    resolution: tuple[int, int]
    seed: int = 0
    device: str = "cpu"
    data: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    latency: Mapping[str, Any] = field(default_factory=dict)


def build_seeded(config: NetworkConfig, seed: int, resolution: tuple[int, int] | None = None) -> nn.Module:
    """The network with initial weights that depend on ``seed`` alone; see `build_network`."""
    with seeded(seed):
        return build_network(config, resolution)


def cost_probe(asked: ProbeInput) -> dict[str, Any]:
    """Costs in closed form, or of a run on the meta device; no weights are made."""
    counts = count(asked.config, asked.resolution)
    return {
        "params": counts.params,
        "macs": counts.macs,
        "macs_padded": counts.macs_padded,
        "macs_paper": counts.macs_paper,
        "activations": counts.activations,
        "weight_mib": counts.weight_mib,
        "moved_mib": counts.moved_mib,
    }


def latency_probe(asked: ProbeInput) -> dict[str, Any]:
    """Median wall time of a batch, its minimum and percentiles, throughput; the rest under samples."""
    result = measure_latency(
        build_measurable(asked.config, asked.seed, asked.resolution),
        asked.resolution,
        device=asked.device,
        **asked.latency,
    )
    return {
        "latency_ms": result.median_ms,
        "latency_ms_min": min(result.samples_ms),
        **{f"latency_ms_p{q}": result.percentile_ms(q) for q in (10, 90, 99)},
        "throughput_img_s": result.throughput_img_s,
        "samples": result.to_dict(),
    }


def memory_probe(asked: ProbeInput) -> dict[str, Any]:
    """Peak memory of inference at the batch size and dtype that latency is measured with."""
    same_as_latency = {key: asked.latency[key] for key in ("batch_size", "dtype") if key in asked.latency}
    peak_mib = measure_peak_memory(
        build_seeded(asked.config, asked.seed, asked.resolution),
        asked.resolution,
        device=asked.device,
        **same_as_latency,
    )
    return {"peak_memory_mib": peak_mib}


def accuracy_probe(asked: ProbeInput) -> dict[str, Any]:
    """Train from scratch with as many classes as the data has; figures of the last epoch, and the curves."""
    options = TrainOptions(**asked.train)
    where = dict(asked.data)
    data = load_dataset(where.pop("name"), **where, train_limit=options.train_limit)
    config = asked.config.replace(num_classes=data.num_classes)
    model = build_seeded(config, asked.seed, data.resolution).to(asked.device)
    result = fit(model, data, options, asked.seed)
    return {
        "top1": result.top1,
        "train_loss": result.curves[-1]["train_loss"],
        "val_loss": result.val_loss,
        "train_seconds": result.seconds,
        "curves": result.curves,
    }


PROBES: dict[str, Callable[[ProbeInput], dict[str, Any]]] = {
    "cost": cost_probe,
    "latency": latency_probe,
    "memory": memory_probe,
    "accuracy": accuracy_probe,
}
"""Every group's probe: one call is one trial."""
