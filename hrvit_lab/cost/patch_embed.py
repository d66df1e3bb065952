"""Closed-form costs of the patch embeddings that open a stage's branch."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.cost.ops import Costs, convolution, layer_norm


class PatchEmbed(NamedTuple):
    """One row of the ``PATCH_EMBED`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(c_in, dim, stride, height, width)``, of the map that comes in → costs.
        live: the same arguments → most elements of maps alive at once beside its input.
    """

    label: str
    source: str
    cost: Callable[[int, int, int, int, int], Costs]
    live: Callable[[int, int, int, int, int], int]


def strided(height: int, width: int, stride: int) -> int:
    """Positions of a map after a convolution of that stride which pads like a stride of 1."""
    return -(-height // stride) * -(-width // stride)


def efficient_cost(c_in: int, dim: int, stride: int, height: int, width: int) -> Costs:
    """1×1 convolution, depthwise 3×3 of that stride, LayerNorm."""
    pixels_in, pixels = height * width, strided(height, width, stride)
    return (
        convolution("patch embedding", c_in, dim, 1, pixels_in),
        convolution("patch embedding", dim, dim, 3, pixels, pixels_in=pixels_in, groups=dim),
        layer_norm(dim, pixels),
    )


def efficient_live(c_in: int, dim: int, stride: int, height: int, width: int) -> int:
    """Two steps at a time."""
    pixels = strided(height, width, stride)
    return dim * max(height * width + pixels, 2 * pixels)


PATCH_EMBED: dict[str, PatchEmbed] = {
    "efficient": PatchEmbed(
        "efficient (1×1 + depthwise 3×3)", "arXiv 2111.01236, section 3.2", efficient_cost, efficient_live
    ),
}
