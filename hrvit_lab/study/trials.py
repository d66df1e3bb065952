"""Trials: one probe on one network under given conditions, and the key of its record."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hrvit_lab.environment import package_version, torch_version
from hrvit_lab.metrics import METRICS
from hrvit_lab.network.baselines import TimmConfig
from hrvit_lab.study import recipe_choice
from hrvit_lab.study.groups import GROUPS, ProbeInput
from hrvit_lab.study.groups.cost import COST
from hrvit_lab.study.space import Variant
from hrvit_lab.study.spec import Spec

AT_TOP = ("seed", "device", "data")
"""Conditions that are fields of a record; the others are under ``options``."""

IDENTITY = ("group", "version", "config_id", *AT_TOP, "options")
"""Fields of a record from which its key is computed."""


@dataclass(frozen=True)
class Trial:
    """One probe and its input.

    Attributes:
        group: a key of `GROUPS`.
        label: text shown to users.
        hardware: the processor or GPU.
        data_files: digest of the training files; empty for data that is part of a package.
        torch: torch's version.
        timm: timm's version; only timm models depend on it.
    """

    group: str
    inputs: ProbeInput
    label: str
    hardware: str
    data_files: str = ""
    torch: str = ""
    timm: str = ""

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """Everything on which the trial's values depend in addition to the network, as listed by its group."""
        known: dict[str, Any] = {
            "resolution": list(self.inputs.resolution),
            "data": {**self.inputs.data, **({"files": self.data_files} if self.data_files else {})},
            "train": dict(self.inputs.train),
            "recipe": None
            if self.inputs.recipe is None
            else recipe_choice.conditions(self.inputs.recipe, self.inputs.processes),
            "latency": dict(self.inputs.latency),
            "seed": self.inputs.seed,
            "device": self.inputs.device,
            "hardware": self.hardware,
            "torch": self.torch,
        }
        found: dict[str, Any] = {"timm": self.timm} if isinstance(self.inputs.config, TimmConfig) else {}
        for name in GROUPS[self.group].depends_on:
            whole, _, part = name.partition(".")
            if known[whole] is None:  # no recipe
                continue
            if not part:
                found[whole] = known[whole]
            elif part in known[whole]:
                found.setdefault(whole, {})[part] = known[whole][part]
        return found

    @cached_property
    def key(self) -> str:
        """32 hex digits, equal for trials that measure the same."""
        return key_of(self._identity)

    def head(self) -> dict[str, Any]:
        """The first fields of the record: network, group with version, and conditions."""
        return {"key": self.key, **self._identity, "config": self.inputs.config.to_dict()}

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "version": GROUPS[self.group].version,
            "config_id": self.inputs.config.id,
            **{name: self.conditions.get(name) for name in AT_TOP},
            "options": {name: value for name, value in self.conditions.items() if name not in AT_TOP},
        }

    @cached_property
    def computed(self) -> Mapping[str, Any] | None:
        """Its values, if they can be computed in closed form; None if they must be measured."""
        compute = GROUPS[self.group].compute
        return compute(self.inputs) if compute else None


def key_of(head: Mapping[str, Any]) -> str:
    """The key of a record with these first fields: a digest of everything on which its values depend."""
    identity = {name: head[name] for name in IDENTITY}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def plan(
    spec: Spec,
    variants: Iterable[Variant],
    hardware: str,
    data_files: str = "",
    torch: str | None = None,
    timm: str | None = None,
) -> dict[str, list[Trial]]:
    """The trials of every variant, by its name; per-seed groups have one trial per seed.

    Args:
        hardware: the processor or GPU, from `hrvit_lab.environment.hardware`.
        data_files: digest of the training files.
        torch, timm: versions; None: the installed ones.
    """
    torch = torch_version() if torch is None else torch
    timm = package_version("timm") if timm is None else timm
    groups = [GROUPS[key] for key in dict.fromkeys(METRICS[metric].group for metric in spec.metrics)]
    data, train, latency = (section.model_dump() for section in (spec.data, spec.train, spec.latency))
    if spec.recipe is not None:
        data, train = ({} if spec.recipe.root is None else {"root": spec.recipe.root}), {}
    return {
        variant.name: [
            Trial(
                group=group.key,
                inputs=ProbeInput(
                    config=variant.cost_config if group is COST else variant.config,
                    resolution=variant.resolution,
                    seed=seed,
                    device=spec.device,
                    data=data,
                    train=train,
                    recipe=spec.recipe.recipe if spec.recipe is not None else None,
                    processes=spec.processes,
                    latency=latency,
                ),
                label=f"{variant.name} · {group.key}" + (f" · seed {seed}" if group.per_seed else ""),
                hardware=hardware,
                data_files=data_files,
                torch=torch,
                timm=timm,
            )
            for group in groups
            for seed in (spec.seeds if group.per_seed else spec.seeds[:1])
        ]
        for variant in variants
    }


def in_order(planned: Mapping[str, Sequence[Trial]]) -> list[Trial]:
    """All distinct trials that must be run: quick ones first, then seed by seed, so that each network has a first
    result early."""
    distinct: dict[str, Trial] = {}
    for trial in (trial for trials in planned.values() for trial in trials):
        if trial.computed is None:
            distinct.setdefault(trial.key, trial)
    return sorted(distinct.values(), key=lambda trial: (not GROUPS[trial.group].quick, trial.inputs.seed))


def computed(planned: Mapping[str, Sequence[Trial]]) -> dict[str, dict[str, Any]]:
    """The values that are computed in closed form, as records by key."""
    return {
        trial.key: {**trial.head(), "status": "ok", "reason": "", "values": dict(trial.computed)}
        for trials in planned.values()
        for trial in trials
        if trial.computed is not None
    }
