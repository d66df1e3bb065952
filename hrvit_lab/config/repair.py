"""Fields that are being edited and may not be valid yet: what is wrong, where, and the nearest valid values.

``fields`` are all fields of a config by name, each with a value of its type and as many entries as branches.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from hrvit_lab.config.schema import HRViTConfig, nearest
from hrvit_lab.config.transforms import with_topology
from hrvit_lab.errors import ConfigError

Fields = Mapping[str, Any]
Place = tuple[int, ...]
"""Entry of a field: ``(branch,)``, ``(stage, branch)`` for depths, ``()`` for a field with a single value."""

BESIDE = ("head_dims", "mlp_ratios")
"""Fields that can be changed instead of a width."""

STEPS: Mapping[str, tuple[float, ...]] = {
    "mlp_ratios": tuple(step / 4 for step in range(1, 65)),
    **dict.fromkeys(("drop_rate", "proj_drop_rate", "drop_path_rate"), tuple(step / 20 for step in range(20))),
    "norm_eps": (1e-6, 1e-5),
}
"""Values that are tried for fields that are not whole numbers."""


class Change(NamedTuple):
    """A new value of a field, or of one of its entries."""

    field: str
    place: Place
    value: Any


class Fault(NamedTuple):
    """What is wrong with fields.

    Attributes:
        message: one sentence.
        field, place: what it is about.
        remedies: changes after which this fault is gone; the fields may have another one.
    """

    message: str
    field: str
    place: Place
    remedies: tuple[Change, ...]


def changed(fields: Fields, change: Change) -> dict[str, Any]:
    """The fields after a change. The stem of a pyramid and its first scale keep equal widths."""
    field, place, value = change
    new = dict(fields) | {field: _placed(fields[field], place, value)}
    if new["topology"] == "pyramid":
        if field == "widths":
            new["stem_width"] = new["widths"][0]
        elif field == "stem_width":
            new["widths"] = (value, *new["widths"][1:])
    return new


def _placed(value: Any, place: Place, entry: Any) -> Any:
    if not place:
        return entry
    first, *rest = place
    return (*value[:first], _placed(value[first], tuple(rest), entry), *value[first + 1 :])


def find_fault(fields: Fields) -> Fault | None:
    """The first fault of the fields, with the nearest valid values; None if they are a valid config."""
    if (message := _message(fields)) is None:
        return None
    field, place = _where(message)
    return Fault(message, field, place, tuple(_remedies(fields, message)))


def _message(fields: Fields) -> str | None:
    try:
        HRViTConfig(**fields)
    except ConfigError as error:
        return str(error)
    return None


def _where(message: str) -> tuple[str, Place]:
    """Field and entry that an error of a config begins with.

    >>> _where("depths[2][1] = 0: give at least 1")
    ('depths', (2, 1))
    """
    found = re.match(r"(\w*)((?:\[\d+\])*)", message)
    assert found is not None  # every part may be empty
    return found[1], tuple(map(int, re.findall(r"\d+", found[2])))


def _remedies(fields: Fields, message: str) -> Iterator[Change]:
    field, place = _where(message)
    if field == "depths" and not place:
        yield from _whole_depths(fields)
    elif field == "stem_width" and fields["topology"] == "pyramid" and fields["stem_width"] != fields["widths"][0]:
        yield Change("stem_width", (), fields["widths"][0])
    elif field in fields:
        yield from _nearest(fields, message, field, place)
        for other in BESIDE:
            if other != field and f" with {other}{[*place]}" in message:
                yield from _nearest(fields, message, other, place)


def _nearest(fields: Fields, message: str, field: str, place: Place) -> Iterator[Change]:
    """The nearest smaller and larger value of that entry with which the fault is gone."""
    now = fields[field]
    for index in place:
        now = now[index]

    def accepts(value: Any) -> bool:
        after = _message(changed(fields, Change(field, place, value)))
        return after is None or _where(after) != _where(message)

    for value in _candidates(field, now, accepts):
        yield Change(field, place, value)


def _candidates(field: str, now: Any, accepts: Callable[[Any], bool]) -> Iterator[Any]:
    if field in STEPS:
        below = next((step for step in reversed(STEPS[field]) if step < now and accepts(step)), None)
        above = next((step for step in STEPS[field] if step > now and accepts(step)), None)
        yield from (step for step in (below, above) if step is not None)
    elif isinstance(now, int) and not isinstance(now, bool):
        yield from nearest(now, accepts)


def _whole_depths(fields: Fields) -> Iterator[Change]:
    """Missing branches with one block each; for several stages of a pyramid, the blocks of each branch in one."""
    depths = fields["depths"]
    if fields["topology"] == "pyramid" and len(depths) > 1:
        parallel = dict(fields) | {"topology": "parallel"}
        if _message(parallel) is None:
            yield Change("depths", (), with_topology(HRViTConfig(**parallel), "pyramid").depths)
        return
    filled: list[tuple[int, ...]] = []
    for stage in depths:
        missing = max(map(len, filled), default=1) - len(stage)
        filled.append((*stage, *(1,) * missing))
    if len(filled[-1]) == len(fields["widths"]):
        yield Change("depths", (), tuple(filled))
