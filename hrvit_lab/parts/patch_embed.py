"""Closed-form costs of the patch embeddings at the start of a branch in a stage."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.parts.ops import Costs, convolution, layer_norm


class PatchEmbed(NamedTuple):
    """One row of the ``PATCH_EMBED`` table.

    Attributes:
        label: text shown to users.
        source: paper and section.
        cost: ``(c_in, dim, stride, height, width)``, of the input map → costs.
        live: the same arguments → maximum number of live elements without its input.
        only_where_needed: whether it is omitted where width and size do not change.
    """

    label: str
    source: str
    cost: Callable[[int, int, int, int, int], Costs]
    live: Callable[[int, int, int, int, int], int]
    only_where_needed: bool = False


def strided(height: int, width: int, stride: int) -> int:
    """Number of positions after a convolution of that stride with "same" padding."""
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
    """The maps of two steps."""
    pixels = strided(height, width, stride)
    return dim * max(height * width + pixels, 2 * pixels)


def dense_cost(c_in: int, dim: int, stride: int, height: int, width: int) -> Costs:
    """One dense 3×3 convolution, LayerNorm."""
    pixels = strided(height, width, stride)
    return (
        convolution("patch embedding", c_in, dim, 3, pixels, pixels_in=height * width),
        layer_norm(dim, pixels),
    )


def dense_live(c_in: int, dim: int, stride: int, height: int, width: int) -> int:
    """The map before and after its norm."""
    return 2 * dim * strided(height, width, stride)


def bare_cost(c_in: int, dim: int, stride: int, height: int, width: int) -> Costs:
    """A 1×1 convolution."""
    pixels = strided(height, width, stride)
    return (convolution("patch embedding", c_in, dim, 1, pixels, pixels_in=height * width),)


def bare_live(c_in: int, dim: int, stride: int, height: int, width: int) -> int:
    """The output map."""
    return dim * strided(height, width, stride)


PATCH_EMBED: dict[str, PatchEmbed] = {
    "efficient": PatchEmbed(
        "efficient (1×1 + depthwise 3×3)", "arXiv 2111.01236, section 3.2", efficient_cost, efficient_live
    ),
    "dense": PatchEmbed("dense 3×3", "arXiv 2105.15203, section 3.1", dense_cost, dense_live),
    "none": PatchEmbed("none (1×1 where needed)", "ours", bare_cost, bare_live, only_where_needed=True),
}
