"""Draw networks from the space of a search, evenly over bands of cost, as a study that trains them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hrvit_lab.config import ConfigError
from hrvit_lab.cost.count import count
from hrvit_lab.search.front import changed_fields
from hrvit_lab.search.genome import Genome, Space

DRAWS = 3000
"""Random networks from which those of the bands are taken."""
BANDS = ("small", "medium", "large")
TAIL = 0.05
"""Share of the cheapest, and of the most expensive networks that belong to no band."""


def draw(space: Space, number: int, seed: int = 0) -> dict[str, Genome]:
    """Different networks by name, equally many in three bands of MACs that are equally wide in the logarithm.

    Args:
        number: of networks; divisible by three.
    Raises:
        ConfigError: if a band has too few networks.
    """
    rng = np.random.default_rng(seed)
    drawn = list(dict.fromkeys(space.random(rng) for _ in range(DRAWS)))
    macs = np.log([count(space.config(genome), space.spec.resolution).macs for genome in drawn])
    cheapest, dearest = np.quantile(macs, (TAIL, 1 - TAIL)).tolist()
    edges = np.linspace(cheapest, dearest, len(BANDS) + 1).tolist()
    found: dict[str, Genome] = {}
    for band, low, high in zip(BANDS, edges, edges[1:], strict=False):
        inside = [genome for genome, value in zip(drawn, macs, strict=True) if low <= value < high]
        each = number // len(BANDS)
        if len(inside) < each:
            raise ConfigError(f"the space has {len(inside)} {band} networks among {DRAWS:,}; draw at most that many")
        found |= {f"{band} {index}": genome for index, genome in enumerate(inside[:each], 1)}
    return found


def variants(space: Space, genomes: Mapping[str, Genome]) -> list[dict[str, Any]]:
    """Entries of ``variants`` of a study file with the search's base."""
    return [{"name": name, "set": changed_fields(space, genome)} for name, genome in genomes.items()]
