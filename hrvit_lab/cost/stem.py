"""Closed-form costs of the stems."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.cost.ops import Costs, batch_norm, convolution, halved


class Stem(NamedTuple):
    """One row of the ``STEM`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(in_chans, stem_width, height, width)``, in pixels of the image → costs.
        width_rule: ``(stem_width,)`` → why this width does not work, or None.
        live: ``(in_chans, stem_width, height, width)`` → most elements of maps alive at once beside the image.
    """

    label: str
    source: str
    cost: Callable[[int, int, int, int], Costs]
    width_rule: Callable[[int], str | None]
    live: Callable[[int, int, int, int], int]


def two_conv_cost(in_chans: int, stem_width: int, height: int, width: int) -> Costs:
    """Two 3×3 convolutions of stride 2, each with BatchNorm, the first to half the width."""
    mid = stem_width // 2
    half = halved(height) * halved(width)
    quarter = halved(halved(height)) * halved(halved(width))
    return (
        convolution("stem", in_chans, mid, 3, half, pixels_in=height * width),
        batch_norm(mid, half, "stem"),
        convolution("stem", mid, stem_width, 3, quarter, pixels_in=half),
        batch_norm(stem_width, quarter, "stem"),
    )


def two_conv_live(in_chans: int, stem_width: int, height: int, width: int) -> int:
    """The image with channels last and the first map; two steps of either map, the second beside the first map."""
    first = stem_width // 2 * halved(height) * halved(width)
    second = stem_width * halved(halved(height)) * halved(halved(width))
    return max(in_chans * height * width + first, 2 * first, first + 2 * second)


def two_conv_width_rule(stem_width: int) -> str | None:
    """The first convolution has half the stem's width."""
    return "the stem's first convolution has half its width, so it must be even" if stem_width % 2 else None


STEM: dict[str, Stem] = {
    "two_conv": Stem(
        "two 3×3 of stride 2", "arXiv 2111.01236, section 3.1", two_conv_cost, two_conv_width_rule, two_conv_live
    ),
}
