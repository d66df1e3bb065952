"""Closed-form costs of the patch embeddings that open a stage's branch."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.cost.ops import Costs, convolution, norm


class PatchEmbed(NamedTuple):
    """One row of the ``PATCH_EMBED`` table: label, source, ``(c_in, dim, height, width)`` → costs."""

    label: str
    source: str
    cost: Callable[[int, int, int, int], Costs]


def efficient_cost(c_in: int, dim: int, height: int, width: int) -> Costs:
    """1×1 convolution, depthwise 3×3, LayerNorm."""
    pixels = height * width
    return (
        convolution("patch embedding", c_in, dim, 1, pixels),
        convolution("patch embedding", dim, dim, 3, pixels, groups=dim),
        norm(dim),
    )


PATCH_EMBED: dict[str, PatchEmbed] = {
    "efficient": PatchEmbed("efficient (1×1 + depthwise 3×3)", "arXiv 2111.01236, section 3.2", efficient_cost),
}
