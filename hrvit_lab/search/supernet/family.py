"""The networks that share the weights of one supernet, and the largest network, which contains all of them.

A network is contained in another if it has its leading channels, hidden channels, blocks, stages and branches, and
equal parts, some of which may be missing: paths of fusions, feed-forward networks, shortcuts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import zip_longest
from typing import Any

import numpy as np

from hrvit_lab.config import PER_BRANCH, ConfigError, HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.parts import ATTENTION
from hrvit_lab.parts.shortcut import kronecker_factors
from hrvit_lab.search.genome import Space

DRAWN = 1000
"""Random networks of the space among which a training draws."""
SIZES = ("widths", "window_sizes", "mlp_ratios", "head_widths", "stem_width", "head_features", "segformer_width",
         "upernet_width")  # fmt: skip
"""Fields of which the largest network has the largest value."""
PATHS = {"dense", "sparse", "late"}
"""Fusions whose paths are among those of the dense one."""
UNCUT = {"fusion": ("weighted_sum",), "patch_embed": ("none",)}
"""Parts with a convolution only where widths differ: smaller networks may have one that the largest has not."""


@dataclass(frozen=True)
class Family:
    """Networks with shared weights.

    Attributes:
        largest: contains all others.
        smallest: the one with the fewest MACs.
        networks: those that are drawn in training.
    """

    largest: HRViTConfig
    smallest: HRViTConfig
    networks: tuple[HRViTConfig, ...]


def family_of(
    space: Space, others: Iterable[HRViTConfig], num_classes: int, resolution: tuple[int, int], seed: int
) -> Family:
    """Random networks of a space as a family, whose largest network also contains others.

    Args:
        others: networks that are not drawn in training, except by chance.
        num_classes: of all networks.
        resolution: (height, width) in pixels, for MACs.
        seed: of the random networks.
    Raises:
        ConfigError: if no network contains all of them.
    """
    rng = np.random.default_rng([seed, DRAWN])
    drawn = [shared(space.config(space.random(rng)), num_classes) for _ in range(DRAWN)]
    largest = largest_of([*drawn, *(shared(config, num_classes) for config in others)])
    return Family(largest, min(drawn, key=lambda config: count(config, resolution).macs), tuple(drawn))


def shared(config: HRViTConfig, num_classes: int) -> HRViTConfig:
    """The network with the data's number of classes. Activations are not recomputed, which changes no result."""
    return config.replace(num_classes=num_classes, grad_checkpointing=False)


def largest_of(networks: Sequence[HRViTConfig]) -> HRViTConfig:
    """The smallest network that contains all others.

    Raises:
        ConfigError: if there is none; names the field and its values.
    """
    if networks[0].head != "classifier":
        raise ConfigError(f"head = {networks[0].head!r} can't be cut to fewer channels; use head = 'classifier'")
    try:
        largest = reduce(_joined, networks).replace(name="")
    except ConfigError as error:
        raise ConfigError(f"the networks can't share the weights of one: {error}") from None
    for field, variants in UNCUT.items():
        if (variant := getattr(largest, field)) in variants:
            raise ConfigError(f"{field} = {variant!r} can't be cut to fewer channels; use another {field}")
    for network in networks:
        _check_parts(network, largest)
    return largest


def _joined(a: HRViTConfig, b: HRViTConfig) -> HRViTConfig:
    """The smallest network that contains both."""
    fields: dict[str, Any] = {}
    for field in HRViTConfig.model_fields:
        values = getattr(a, field), getattr(b, field)
        if field == "depths":
            stages = zip_longest(*values, fillvalue=())
            fields[field] = tuple(tuple(map(max, zip_longest(*stage, fillvalue=0))) for stage in stages)
        elif field in PER_BRANCH:
            fields[field] = tuple(
                _larger(field, f"{field}[{branch}]", *pair) if None not in pair else pair[0] or pair[1]
                for branch, pair in enumerate(zip_longest(*values))
            )
        elif field != "name":
            fields[field] = _larger(field, field, *values)
    return HRViTConfig(**fields)


def _larger(field: str, place: str, a: Any, b: Any) -> Any:
    """The value of a field that contains both."""
    if a == b:
        return a
    if field in SIZES:
        return max(a, b)
    if field in ("ffn", "shortcut") and "none" in (a, b):
        return b if a == "none" else a
    if field == "fusion" and {a, b} <= PATHS:
        return "dense"
    raise ConfigError(f"{place} is {a!r} and {b!r}, of which neither is a part of the other; use one of them in all")


def _check_parts(network: HRViTConfig, largest: HRViTConfig) -> None:
    """Check that the leading channels and blocks of the largest network do what those of the network do."""
    for branch, (width, widest) in enumerate(zip(network.widths, largest.widths, strict=False)):
        row, longest = kronecker_factors(width)[1], kronecker_factors(widest)[1]
        if network.shortcut == "des" and row != longest:
            raise ConfigError(
                f"widths[{branch}] = {width} and {widest} can't share the weights of DES, whose rows have {row} and "
                f"{longest} channels; use widths from {longest**2 // 2} to {2 * longest**2 - 1}, or no shortcut"
            )
        if ATTENTION[network.attention[branch]].even and network.depths != largest.depths:
            raise ConfigError(
                f"attention[{branch}] = {network.attention[branch]!r} alternates from block to block, so other depths "
                "have other blocks; use equal depths in all networks"
            )
