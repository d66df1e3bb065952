"""Axes of a study: any field of a config, and derived axes that change several fields at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hrvit_lab.config import (
    MAX_BRANCHES,
    ConfigError,
    HRViTConfig,
    check_field,
    scale_depths,
    scale_widths,
    suggest,
    with_branches,
)
from hrvit_lab.network.baselines import NetworkConfig

MAX_FACTOR = 16


@dataclass(frozen=True)
class Axis:
    """A derived axis: ``apply(config, value)`` sets it and ``value(config)`` reads it.

    Values are numbers of the types ``kinds``, above 0 and at most ``most``.
    """

    apply: Callable[[HRViTConfig, Any], HRViTConfig]
    of: Callable[[HRViTConfig], int | float]
    kinds: tuple[type, ...]
    most: int


AXES: Mapping[str, Axis] = {
    "branches": Axis(with_branches, lambda config: config.num_branches, (int,), MAX_BRANCHES),
    "depth_scale": Axis(scale_depths, lambda config: 1.0, (int, float), MAX_FACTOR),
    "width_scale": Axis(scale_widths, lambda config: 1.0, (int, float), MAX_FACTOR),
}

STARTS = ("preset", "model")
"""Keys of a variant's changes that name the network to start from."""

FIELDS = tuple(field for field in HRViTConfig.model_fields if field != "name")


def check_axis(name: str, value: Any) -> None:
    """Raise an error for an unknown axis, or for a value that is invalid on it in every network.

    (A value that is invalid only in combination with others drops that point of the study; see `expand`.)

    Raises:
        ConfigError: naming the axis, the value and the remedy.
    """
    if name not in AXES and name not in FIELDS:
        raise ConfigError(f"unknown axis {name!r}; {suggest(name, [*AXES, *FIELDS])}")
    if name in AXES:
        number = isinstance(value, AXES[name].kinds) and not isinstance(value, bool)
        if not (number and 0 < value <= AXES[name].most):
            noun = "a whole number" if AXES[name].kinds == (int,) else "a number"
            raise ConfigError(f"{name} = {value!r} is invalid; give {noun} above 0 and at most {AXES[name].most}")
    else:
        check_field(name, value)


def apply(config: NetworkConfig, changes: Mapping[str, Any]) -> NetworkConfig:
    """The config with these axes set: first branches (fields have one entry per branch), then fields, then scales.

    Raises:
        ConfigError: if the resulting config is invalid.
    """
    if not isinstance(config, HRViTConfig):
        return config.replace(**changes)
    if "branches" in changes:
        config = with_branches(config, changes["branches"])
    fields = {name: value for name, value in changes.items() if name not in AXES}
    config = config.replace(**fields) if fields else config
    for name in ("depth_scale", "width_scale"):
        if name in changes:
            config = AXES[name].apply(config, changes[name])
    return config


def value_of(config: NetworkConfig, name: str) -> Any:
    """A config's value on an axis; a single value for fields equal in all branches, None if it has no such field."""
    if not isinstance(config, HRViTConfig):
        return getattr(config, name, None)
    if name in AXES:
        return AXES[name].of(config)
    value = getattr(config, name)
    if isinstance(value, tuple) and value and not isinstance(value[0], tuple) and len(set(value)) == 1:
        return value[0]
    return value


def show(value: Any) -> Any:
    """An axis value as a table cell: scalars as they are, ``[1, 2, 7]`` as ``1-2-7``, nested lists with ``/``."""
    if not isinstance(value, list | tuple):
        return value
    nested = any(isinstance(item, list | tuple) for item in value)
    return ("/" if nested else "-").join(str(show(item)) for item in value)
