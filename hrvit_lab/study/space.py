"""From a study to its networks: points on the axes, matched in cost, within the constraints. Nothing is built."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.measure import METRICS
from hrvit_lab.measure.count import count
from hrvit_lab.study.axes import apply, show, value_of
from hrvit_lab.study.matching import match_macs
from hrvit_lab.study.spec import AS_IS, EQUAL_MACS, Spec

MATCH_TOLERANCE = 0.05
"""A network whose MACs can't come nearer than this to the base's says so in its row."""


@dataclass(frozen=True)
class Variant:
    """A row of the study: a network and where it stands.

    ``point`` holds the table's axis columns: a value for each axis and, where the study matches costs, ``matching``,
    ``macs_vs_base`` (ratio) and ``note``.
    """

    name: str
    config: HRViTConfig
    point: Mapping[str, Any] = field(default_factory=dict)


class Dropped(NamedTuple):
    """A variant that is not measured, and why."""

    name: str
    reason: str


class Expansion(NamedTuple):
    """All variants of a study: those to measure and those dropped."""

    variants: list[Variant]
    dropped: list[Dropped]


class _Refused(ValueError):
    """A point of the space that the study leaves out."""


def expand(spec: Spec) -> Expansion:
    """The networks of a study in the file's order, matching by matching.

    Raises:
        ConfigError: if none is left.
    """
    variants: list[Variant] = []
    dropped: list[Dropped] = []
    base_macs = count(spec.base_config, spec.resolution).macs
    for matching, (name, start, changes) in itertools.product(spec.match, _points(spec)):
        full_name = f"{name}, {matching}" if matching == EQUAL_MACS and spec.match != (EQUAL_MACS,) else name
        try:
            variants.append(_variant(spec, full_name, start, changes, matching, base_macs))
        except (_Refused, ConfigError) as refusal:
            dropped.append(Dropped(full_name, str(refusal)))
    if not variants:
        raise ConfigError(
            f"no variant is left to measure; the first, {dropped[0].name!r}, fell out: {dropped[0].reason}"
        )
    return Expansion(variants, dropped)


def _points(spec: Spec) -> Iterator[tuple[str, HRViTConfig, dict[str, Any]]]:
    """Name, network to start from and changes of every point."""
    base = spec.base_config
    if spec.grid:
        for point in itertools.product(*spec.grid.values()):
            changes = dict(zip(spec.grid, point, strict=True))
            yield ", ".join(f"{axis}={show(value)}" for axis, value in changes.items()), base, changes
    elif spec.one_at_a_time:
        yield "base", base, {}
        for axis, values in spec.one_at_a_time.items():
            yield from ((f"{axis}={show(value)}", base, {axis: value}) for value in values)
    else:
        for entry in spec.variants or ():
            changes = dict(entry.set)
            preset = changes.pop("preset", None)
            yield entry.name, HRViTConfig.from_dict({"preset": preset}) if preset else base, changes


def _variant(
    spec: Spec, name: str, start: HRViTConfig, changes: Mapping[str, Any], matching: str, base_macs: int
) -> Variant:
    as_is = apply(start, changes)
    if spec.one_at_a_time and changes and as_is.id == start.id:
        raise _Refused("it is the base itself")
    config = match_macs(as_is, base_macs, spec.resolution) if matching == EQUAL_MACS else as_is
    config.check_resolution(spec.resolution)
    if any(METRICS[key].group == "accuracy" for key in spec.metrics):
        config.check_resolution(spec.data.resolution)
    costs = count(config, spec.resolution)
    for key, bounds in spec.constraints.items():
        cost = getattr(costs, key)
        if not bounds.min <= cost <= bounds.max:
            wanted = f"at least {bounds.min:g}" if cost < bounds.min else f"at most {bounds.max:g}"
            raise _Refused(f"{key} = {cost:,} but the study wants {wanted}")
    point = {axis: show(changes.get(axis, value_of(as_is, axis))) for axis in spec.axis_names}
    if spec.match != (AS_IS,):
        ratio = costs.macs / base_macs
        far = matching == EQUAL_MACS and abs(ratio - 1) > MATCH_TOLERANCE
        note = f"no accepted widths come nearer than {ratio - 1:+.0%} to the base's MACs" if far else ""
        point |= {"matching": matching, "macs_vs_base": ratio, "note": note}
    return Variant(name, config.replace(name=name[:100]), point)
