"""What a group of metrics is: figures that come from one measurement."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hrvit_lab.metrics import METRICS, Metric
from hrvit_lab.network.baselines import NetworkConfig

Figures = dict[str, Any]


def ignore_steps(done: int, total: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class ProbeInput:
    """What a trial measures, picklable.

    Attributes:
        config: the network.
        resolution: height and width of the input in pixels, for costs, latency and memory.
        seed: of initial weights and training.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        data: arguments of ``load_dataset``: ``name``, ``resolution`` and, for files elsewhere, ``root``.
        train: fields of ``TrainOptions``.
        latency: arguments of ``measure_latency`` beside model, resolution and device.
        on_step: is called with (steps done, steps in all) by probes that take long.
    """

    config: NetworkConfig
    resolution: tuple[int, int]
    seed: int = 0
    device: str = "cpu"
    data: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    latency: Mapping[str, Any] = field(default_factory=dict)
    on_step: Callable[[int, int], None] = field(default=ignore_steps, compare=False)


@dataclass(frozen=True)
class Group:
    """Metrics that one probe measures together. Which ones they are, `METRICS` says.

    Attributes:
        key: its name in `GROUPS`, and in `Metric.group`.
        label: what one trial of it is, for people.
        version: raise it when the probe begins to measure otherwise: records of another version don't count.
        depends_on: names of what the figures depend on beside the network: ``"resolution"``, ``"data"``, ``"train"``,
            ``"latency"``, ``"seed"``, ``"device"``, ``"hardware"``, ``"torch"`` (its version); or one part of it, as
            ``"latency.dtype"``.
        probe: measures in a worker process, and imports what it needs itself. It returns one flat dict: metrics (and
            their spread, ``SPREAD``) in base units; beside them, under ``ATTACHMENTS``, what else is kept. It raises
            what goes wrong.
        alone: whether it measures times, so that nothing else may run on the host.
        shared_clock: metrics that are times of something that runs beside others: they are marked as disturbed then.
        quick: whether its trials take no time worth counting.
        compute: gives the figures at once where they are arithmetic; None where the probe must run. What is computed
            is not stored.
    """

    key: str
    label: str
    version: int
    depends_on: tuple[str, ...]
    probe: Callable[[ProbeInput], Figures]
    alone: bool = False
    shared_clock: tuple[str, ...] = ()
    quick: bool = False
    compute: Callable[[ProbeInput], Figures | None] | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What it measures."""
        return tuple(metric for metric in METRICS.values() if metric.group == self.key)

    @property
    def per_seed(self) -> bool:
        """Whether there is a trial for every seed."""
        return any(metric.per_seed for metric in self.metrics)


ATTACHMENTS = ("curves", "samples", "disturbed")
"""What a probe may return beside figures: a training's curves, raw samples, and why which figures are in doubt
(``{metric: [reason, …]}``)."""
