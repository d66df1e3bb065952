"""Closed-form costs of the patch embeddings that open a stage's branch."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.cost.ops import Costs, convolution, layer_norm


class PatchEmbed(NamedTuple):
    """One row of the ``PATCH_EMBED`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(c_in, dim, height, width)`` → costs at that map.
        live: ``(dim, height, width)`` → most elements of maps alive at once beside its input.
    """

    label: str
    source: str
    cost: Callable[[int, int, int, int], Costs]
    live: Callable[[int, int, int], int]


def efficient_cost(c_in: int, dim: int, height: int, width: int) -> Costs:
    """1×1 convolution, depthwise 3×3, LayerNorm."""
    pixels = height * width
    return (
        convolution("patch embedding", c_in, dim, 1, pixels),
        convolution("patch embedding", dim, dim, 3, pixels, groups=dim),
        layer_norm(dim, pixels),
    )


def efficient_live(dim: int, height: int, width: int) -> int:
    """Two steps at a time."""
    return 2 * dim * height * width


PATCH_EMBED: dict[str, PatchEmbed] = {
    "efficient": PatchEmbed(
        "efficient (1×1 + depthwise 3×3)", "arXiv 2111.01236, section 3.2", efficient_cost, efficient_live
    ),
}
