"""Group of metrics that one measurement produces."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hrvit_lab.metrics import METRICS, Metric
from hrvit_lab.network.baselines import NetworkConfig
from hrvit_lab.train.recipe import AnyRecipe

Figures = dict[str, Any]


def ignore_steps(done: int, total: int) -> None:
    """The default ``on_step``: does nothing."""


@dataclass(frozen=True)
class ProbeInput:
    """The picklable input of a probe.

    Attributes:
        config: the network.
        resolution: height and width of the input in pixels, for costs, latency and memory.
        seed: of initial weights and training.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        data: arguments of ``load_dataset``: ``name``, ``resolution`` and optionally ``root``; with a recipe ``root``
            alone.
        train: fields of ``TrainOptions``; empty with a recipe.
        recipe: of the training; None: the short training.
        processes: number of processes of a training by a recipe.
        latency: arguments of ``measure_latency`` except model, resolution and device.
        on_step: long-running probes call it with (steps done, total steps).
    """

    config: NetworkConfig
    resolution: tuple[int, int]
    seed: int = 0
    device: str = "cpu"
    data: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    recipe: AnyRecipe | None = None
    processes: int = 1
    latency: Mapping[str, Any] = field(default_factory=dict)
    on_step: Callable[[int, int], None] = field(default=ignore_steps, compare=False)


@dataclass(frozen=True)
class Group:
    """Metrics that one probe measures together; `METRICS` assigns each metric to a group.

    Attributes:
        key: its name in `GROUPS`, and in `Metric.group`.
        label: what one trial of it is, as shown to users.
        version: increase it when the probe changes what it measures; records of other versions are ignored.
        depends_on: conditions that the values depend on, in addition to the network: ``"resolution"``, ``"data"``,
            ``"train"``, ``"recipe"``, ``"latency"``, ``"seed"``, ``"device"``, ``"hardware"``, ``"torch"`` (its
            version); or one field of a condition, such as ``"latency.dtype"``.
        probe: measures in a worker process, and imports its dependencies when called. It returns one flat dict: metrics
            (and their spread, ``SPREAD``) in base units, and additional data under ``ATTACHMENTS``. It raises an
            exception if the measurement fails.
        alone: whether no other trial may run on the host at the same time (for latency).
        shared_clock: durations that are marked as unreliable if other trials ran at the same time.
        quick: whether its trials take negligible time.
        compute: returns the values of networks that need no probe (closed form), or None. Such values are not stored.
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
        """The metrics of this group."""
        return tuple(metric for metric in METRICS.values() if metric.group == self.key)

    @property
    def per_seed(self) -> bool:
        """Whether there is one trial per seed."""
        return any(metric.per_seed for metric in self.metrics)


ATTACHMENTS = ("curves", "samples", "disturbed")
"""Additional data that a probe may return: training curves, raw samples, and unreliable metrics
(``{metric: [reason, …]}``)."""
