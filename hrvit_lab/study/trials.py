"""A trial: one probe on one network under one set of conditions, and the key under which its record is kept."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hrvit_lab.metrics import METRICS
from hrvit_lab.study.probes import ProbeInput
from hrvit_lab.study.space import Variant
from hrvit_lab.study.spec import Spec

PROTOCOL = 3
"""Raise it when a probe begins to measure otherwise: older records then no longer count.

3: latency comes from the lab's engine, where each timed run follows an untimed one, alternates with its twin's in
random order, and precision may end it; its figures are not those of runs in a row.
"""

DEPENDS_ON = {
    "cost": ("resolution",),
    "accuracy": ("data", "train", "seed", "device"),
    "latency": ("resolution", "latency", "device", "hardware"),
    "memory": ("resolution", "latency", "device", "hardware"),
}
"""What a group's figures depend on beside the network; a group that is not named here depends on everything."""

EVERYTHING = ("resolution", "data", "train", "latency", "seed", "device", "hardware")


@dataclass(frozen=True)
class Trial:
    """One probe and its input.

    Attributes:
        group: the probe's name in ``PROBES``.
        label: for people.
        hardware: the chip.
        data_files: digest of the files to train on; empty for data that come with a package.
    """

    group: str
    inputs: ProbeInput
    label: str
    hardware: str
    data_files: str = ""

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """Everything that the trial's figures depend on beside the network."""
        known = {
            "resolution": list(self.inputs.resolution),
            "data": {**self.inputs.data, **({"files": self.data_files} if self.data_files else {})},
            "train": dict(self.inputs.train),
            "latency": dict(self.inputs.latency),
            "seed": self.inputs.seed,
            "device": self.inputs.device,
            "hardware": self.hardware,
        }
        return {name: known[name] for name in DEPENDS_ON.get(self.group, EVERYTHING)}

    @cached_property
    def key(self) -> str:
        """32 hex digits, equal for trials that would measure the same thing."""
        identity = {
            "protocol": PROTOCOL,
            "group": self.group,
            "config_id": self.inputs.config.id,
            **self.conditions,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]

    def head(self) -> dict[str, Any]:
        """The record's first part: what was measured."""
        return {
            "protocol": PROTOCOL,
            "key": self.key,
            "group": self.group,
            "config_id": self.inputs.config.id,
            "config": self.inputs.config.to_dict(),
            **{name: self.conditions.get(name) for name in ("seed", "device", "data")},
            "options": {
                name: value for name, value in self.conditions.items() if name not in ("seed", "device", "data")
            },
        }


def plan(spec: Spec, variants: Iterable[Variant], hardware: str, data_files: str = "") -> dict[str, list[Trial]]:
    """The trials of every variant, by its name; per-seed groups have one for each seed."""
    wanted = [METRICS[key] for key in spec.metrics]
    per_seed = {metric.group: metric.per_seed for metric in wanted}
    return {
        variant.name: [
            Trial(
                group=group,
                inputs=ProbeInput(
                    config=variant.cost_config if group == "cost" else variant.config,
                    resolution=variant.resolution,
                    seed=seed,
                    device=spec.device,
                    data=spec.data.model_dump(),
                    train=spec.train.model_dump(),
                    latency=spec.latency.model_dump(),
                ),
                label=f"{variant.name} · {group}" + (f" · seed {seed}" if seeded else ""),
                hardware=hardware,
                data_files=data_files,
            )
            for group, seeded in per_seed.items()
            for seed in (spec.seeds if seeded else spec.seeds[:1])
        ]
        for variant in variants
    }


def in_order(planned: dict[str, list[Trial]]) -> list[Trial]:
    """Every distinct trial once: costs first, then seed by seed, so that a first full picture comes early."""
    distinct: dict[str, Trial] = {}
    for trial in (trial for trials in planned.values() for trial in trials):
        distinct.setdefault(trial.key, trial)
    return sorted(distinct.values(), key=lambda trial: (trial.group != "cost", trial.inputs.seed))
