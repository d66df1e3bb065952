"""What the rows of ``points.Points`` share: kinds, properties of configs, costs, and how a value gets into a row."""

from collections.abc import Mapping
from typing import Any

from hrvit_lab.cli import show_size
from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.files import MIB
from hrvit_lab.published import FAMILIES
from hrvit_lab.study.quantities import UNCONDITIONAL, Quantity, of_metric

HRVIT, BASELINE, PUBLISHED = KINDS = ("HRViT", "baseline", "published")
"""Kinds of points: an HRViT or a baseline, both measured here, or a published network."""

FIELDS = ("branches", "attention", "ffn", "fusion", "topology")
"""Properties of a variant that are columns of the table; missing for networks without a config."""

OTHER_FAMILY = "other"
_PYRAMIDS = {"spatial_reduction": "MiT", "cswin": "CSWin"}
"""Families of networks with one branch at a time, by their attention."""

COSTS = ("params", "macs")
"""Costs of trained and timed networks."""

MAX_BYTES = 4 * MIB
"""Of a file that is read."""


def kind_of(config: Mapping[str, Any] | None) -> str:
    """Whether the network of a config's fields is a baseline or a variant of HRViT."""
    return BASELINE if config is not None and "model" in config else HRVIT


def family_of(config: Mapping[str, Any] | None, name: str = "") -> str:
    """The family of a network, one of ``published.FAMILIES`` or ``OTHER_FAMILY``.

    Args:
        config: its fields, which are not validated; None if they are unknown.
        name: of a network without a config.

    >>> family_of({"topology": "pyramid", "attention": ["cswin"] * 4}), family_of({}), family_of(None, "hrformer_tiny")
    ('CSWin', 'HRViT', 'HRFormer')
    """
    if config is None or "model" in config:
        name = name if config is None else str(config["model"]).rpartition(":")[2]
        return FAMILIES.get(name.partition("_")[0], OTHER_FAMILY)
    found = config.get("attention") if config.get("topology") == "pyramid" else None
    kinds = set(map(str, found)) if isinstance(found, list | tuple) else {str(found)}
    return _PYRAMIDS.get(kinds.pop(), FAMILIES["hrvit"]) if len(kinds) == 1 else FAMILIES["hrvit"]


def properties(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """``FIELDS`` of a config's fields, and its family. Fields are not validated; those of another type are missing."""
    found: dict[str, Any] = {**dict.fromkeys(FIELDS), "family": family_of(config)}
    if config is None:
        return found
    for name in FIELDS[1:]:
        value = config.get(name)
        values: list[Any] = value if isinstance(value, list) else [value]
        names = [each for each in values if isinstance(each, str)]
        found[name] = ", ".join(dict.fromkeys(names)) or None
    widths = config.get("widths")
    found["branches"] = str(len(widths)) if isinstance(widths, list) else None
    return found


def put(row: dict[str, Any], quantities: dict[str, Quantity], quantity: Quantity, value: float) -> None:
    """Write a value into a row; its quantity is added to ``quantities`` if it is new."""
    quantities.setdefault(quantity.key, quantity)
    row[quantity.key] = value


def put_costs(row: dict[str, Any], quantities: dict[str, Quantity], config: HRViTConfig, size: tuple[int, int]) -> None:
    """Write the ``COSTS`` of a network at an input of (height, width) pixels, in closed form.

    Raises:
        ConfigError: if the network does not accept that size.
    """
    counts = count(config, size)
    for key in COSTS:
        put(row, quantities, cost(key, size), getattr(counts, key))


def cost(key: str, size: tuple[int, int]) -> Quantity:
    """The quantity of a cost at an input of (height, width) pixels."""
    return of_metric(key, "" if key in UNCONDITIONAL else f"{show_size(size)} px")
