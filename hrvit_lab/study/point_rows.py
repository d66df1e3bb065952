"""What the rows of ``points.Points`` share: kinds, properties of configs, costs, and how a value gets into a row."""

from collections.abc import Mapping
from typing import Any

from hrvit_lab.cli import show_size
from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.files import MIB
from hrvit_lab.study.quantities import UNCONDITIONAL, Quantity, of_metric

HRVIT, BASELINE, PUBLISHED = KINDS = ("HRViT", "baseline", "published")
"""Kinds of points: an HRViT or a baseline, both measured here, or a published network."""

FIELDS = ("branches", "attention", "ffn", "fusion", "topology")
"""Properties of a variant that are columns of the table; missing for networks without a config."""

COSTS = ("params", "macs")
"""Costs of trained and timed networks."""

MAX_BYTES = 4 * MIB
"""Of a file that is read."""


def kind_of(config: Mapping[str, Any] | None) -> str:
    """Whether the network of a config's fields is a baseline or a variant of HRViT."""
    return BASELINE if config is not None and "model" in config else HRVIT


def properties(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """``FIELDS`` of a config's fields. The fields are not validated; those of another type are missing."""
    found: dict[str, Any] = dict.fromkeys(FIELDS)
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
