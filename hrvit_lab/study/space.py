"""Expand a study to its networks: points on the axes, matched in cost, within the constraints. Builds no network."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hrvit_lab.config import ConfigError, HRViTConfig, suggest
from hrvit_lab.cost.count import Counts, UncountedOperator, count
from hrvit_lab.metrics import METRICS
from hrvit_lab.network.baselines import NetworkConfig, network_from_dict
from hrvit_lab.parts import HEAD
from hrvit_lab.study.axes import STARTS, apply, show, value_of
from hrvit_lab.study.matching import match_macs
from hrvit_lab.study.spec import AS_IS, EQUAL_MACS, NamedChange, Spec

MATCH_TOLERANCE = 0.05
"""A matched network whose MACs differ from the base's by more than this ratio has a note in its row."""


@dataclass(frozen=True)
class Variant:
    """A row of the study: a network and its values on the axes.

    Attributes:
        config: the network.
        resolution: (height, width) in pixels for costs and latency.
        point: the table's axis columns: a value for each axis; if the study matches costs, ``matching`` and
            ``macs_vs_base`` (ratio); optionally ``note``.
        cost_config: the network of the row's costs: ``config`` itself unless the study has a ``cost_base``.
        published: key of the published row to compare with.
    """

    name: str
    config: NetworkConfig
    resolution: tuple[int, int]
    point: Mapping[str, Any]
    cost_config: NetworkConfig
    published: str | None = None

    def __repr__(self) -> str:
        return f"Variant({self.name!r}, {self.config!r})"


class Point(NamedTuple):
    """A variant before its config is computed: name, starting network (None: the base) and changes."""

    name: str
    start: Mapping[str, Any] | None
    changes: Mapping[str, Any]
    entry: NamedChange | None = None


class Dropped(NamedTuple):
    """A variant that is not measured, with the reason."""

    name: str
    reason: str


class Expansion(NamedTuple):
    """All variants of a study: to measure, and dropped."""

    variants: list[Variant]
    dropped: list[Dropped]


class _Refused(ValueError):
    """A point of the space that is excluded."""


def expand(spec: Spec) -> Expansion:
    """The networks of a study in the file's order, matching by matching.

    Points of a grid with an invalid config, or that do not support the study's resolutions, are dropped.

    Raises:
        ConfigError: if a variant listed by name is invalid, a network to train has no head for the task, no variant
            is left, or ``compare_to`` is not among them.
    """
    _check_listed(spec)
    variants: list[Variant] = []
    dropped: list[Dropped] = []
    base_macs = count(spec.base_config, spec.resolution).macs if spec.match != (AS_IS,) else None
    for matching, point in itertools.product(spec.match, _points(spec)):
        full_name = (
            f"{point.name}, {matching}" if matching == EQUAL_MACS and spec.match != (EQUAL_MACS,) else point.name
        )
        try:
            variants.append(_variant(spec, full_name, point, matching, base_macs))
        except (_Refused, ConfigError, UncountedOperator) as refusal:
            dropped.append(Dropped(full_name, str(refusal)))
    if not variants:
        raise ConfigError(
            f"all variants are excluded; change the study (reason for the first, {dropped[0].name!r}: "
            f"{dropped[0].reason})"
        )
    _check_heads(spec, variants)
    names = [variant.name for variant in variants]
    gone = next((drop for drop in dropped if drop.name == spec.compare_to), None)
    if gone:
        raise ConfigError(f"compare_to = {gone.name!r} is excluded ({gone.reason}); compare with another variant")
    if spec.compare_to is not None and spec.compare_to not in names:
        raise ConfigError(f"compare_to = {spec.compare_to!r} is not a variant; {suggest(spec.compare_to, names)}")
    return Expansion(variants, dropped)


def _check_listed(spec: Spec) -> None:
    """Raise an error for an invalid variant that is listed by name, instead of dropping it."""
    for point in _points(spec):
        for base in (spec.base, spec.cost_base):
            try:
                if point.entry and base:
                    _network(base, point)
            except ConfigError as error:
                raise ConfigError(f"variant {point.name!r}: {error}") from None


def _check_heads(spec: Spec, variants: Iterable[Variant]) -> None:
    """Check before any training that the networks to train have heads for the task."""
    trained_for = [key for key in spec.metrics if METRICS[key].per_seed]
    whole = spec.task == "classification"
    fitting = [name for name, head in HEAD.items() if head.present and head.whole_image == whole]
    for variant in variants if trained_for else ():
        needed = f"which {' and '.join(trained_for)} need{'s' * (len(trained_for) == 1)}"
        if not isinstance(variant.config, HRViTConfig):
            if not whole:
                raise ConfigError(
                    f"variant {variant.name!r}: {variant.config.model} does not segment images, {needed}; use a preset"
                )
        elif variant.config.head not in fitting:
            does = "classify whole images" if whole else "segment images"
            raise ConfigError(
                f"variant {variant.name!r}: head = {variant.config.head!r} does not {does}, {needed}; use one of the "
                f"heads {', '.join(fitting)}, or measure only costs and latency"
            )


def _points(spec: Spec) -> Iterator[Point]:
    """All points of the space, in the file's order."""
    if spec.grid:
        for point in itertools.product(*spec.grid.values()):
            changes = dict(zip(spec.grid, point, strict=True))
            yield Point(", ".join(f"{axis}={show(value)}" for axis, value in changes.items()), None, changes)
    elif spec.one_at_a_time:
        yield Point("base", None, {})
        for axis, values in spec.one_at_a_time.items():
            yield from (Point(f"{axis}={show(value)}", None, {axis: value}) for value in values)
    else:
        for entry in spec.variants or ():
            if entry.set is not None:
                start = {key: entry.set[key] for key in STARTS if key in entry.set}
                changes = {key: value for key, value in entry.set.items() if key not in STARTS}
                yield Point(entry.name, start or None, changes, entry)


def _network(base: Mapping[str, Any], point: Point) -> NetworkConfig:
    """The network of a point. A timm model gets the base's num_classes and in_chans, a preset keeps its own."""
    network = network_from_dict(base)
    if point.start and "model" in point.start:
        like_base = {"num_classes": network.num_classes, "in_chans": network.in_chans}
        return apply(network_from_dict({**point.start, **like_base}), point.changes)
    return apply(network_from_dict(point.start) if point.start else network, point.changes)


def _variant(spec: Spec, name: str, point: Point, matching: str, base_macs: int | None) -> Variant:
    as_is = _network(spec.base, point)
    if spec.one_at_a_time and point.changes and as_is.id == spec.base_config.id:
        raise _Refused("it is identical to the base")
    resolution = spec.resolution_of(point.name)
    as_is.check_resolution(resolution)
    if matching == EQUAL_MACS and base_macs is not None:
        if not isinstance(as_is, HRViTConfig):
            raise _Refused(f"{as_is.model} has no widths to scale")
        config: NetworkConfig = match_macs(as_is, base_macs, resolution)
    else:
        config = as_is
    if any(METRICS[key].per_seed for key in spec.metrics):
        config.check_resolution(spec.train_resolution)
    costed = _network(spec.cost_base, point) if spec.cost_base else config
    costed.check_resolution(resolution)
    if spec.constraints:
        _check(spec, count(costed, resolution))
    columns = {axis: show(point.changes.get(axis, value_of(as_is, axis))) for axis in spec.axis_names}
    note = point.entry.note if point.entry else ""
    if any(entry.resolution for entry in spec.variants or ()):
        columns["resolution"] = show_size(resolution)
    if base_macs is not None:
        ratio = count(config, resolution).macs / base_macs
        far = matching == EQUAL_MACS and abs(ratio - 1) > MATCH_TOLERANCE
        missed = f"MACs differ by {ratio - 1:+.0%} from the base's; no valid widths are closer" if far else ""
        columns |= {"matching": matching, "macs_vs_base": ratio, "note": "; ".join(filter(None, (note, missed)))}
    elif note:
        columns["note"] = note
    return Variant(
        name=name,
        config=config.replace(name=name[:100]),
        resolution=resolution,
        point=columns,
        cost_config=costed.replace(name=name[:100]),
        published=point.entry.published if point.entry else None,
    )


def _check(spec: Spec, costs: Counts) -> None:
    """Raise `_Refused` if the costs are outside the study's constraints."""
    for key, bounds in spec.constraints.items():
        cost = getattr(costs, key)
        low, high = bounds.min is not None and cost < bounds.min, bounds.max is not None and cost > bounds.max
        if low or high:
            wanted = f"at least {bounds.min:g}" if low else f"at most {bounds.max:g}"
            raise _Refused(f"{key} = {cost:,}, but the study allows {wanted}")


def show_size(resolution: tuple[int, int]) -> str:
    """``512×1024``, height and width."""
    return f"{resolution[0]}×{resolution[1]}"
