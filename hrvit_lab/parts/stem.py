"""Closed-form costs of the stems."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from hrvit_lab.parts.ops import Costs, batch_norm, convolution, elementwise, halved, layer_norm


class Stem(NamedTuple):
    """One row of the ``STEM`` table.

    Attributes:
        label: text shown to users.
        source: paper and section.
        cost: ``(in_chans, stem_width, height, width)``, in pixels of the image → costs.
        width_rule: ``(stem_width,)`` → the reason why a width is invalid, or None.
        live: ``(in_chans, stem_width, height, width)`` → maximum number of live elements without the image.
    """

    label: str
    source: str
    cost: Callable[[int, int, int, int], Costs]
    width_rule: Callable[[int], str | None]
    live: Callable[[int, int, int, int], int]


def two_conv_cost(in_chans: int, stem_width: int, height: int, width: int) -> Costs:
    """Two 3×3 convolutions of stride 2, each with BatchNorm and ReLU, the first to half the width."""
    mid = stem_width // 2
    half = halved(height) * halved(width)
    quarter = halved(halved(height)) * halved(halved(width))
    return (
        convolution("stem", in_chans, mid, 3, half, pixels_in=height * width),
        batch_norm(mid, half, "stem"),
        elementwise("stem", "relu", mid * half),
        convolution("stem", mid, stem_width, 3, quarter, pixels_in=half),
        batch_norm(stem_width, quarter, "stem"),
        elementwise("stem", "relu", stem_width * quarter),
    )


def two_conv_live(in_chans: int, stem_width: int, height: int, width: int) -> int:
    """The maximum of: the image with channels last and the first map; the first map in two steps; the first map, and
    the second map in two steps."""
    first = stem_width // 2 * halved(height) * halved(width)
    second = stem_width * halved(halved(height)) * halved(halved(width))
    return max(in_chans * height * width + first, 2 * first, first + 2 * second)


def two_conv_width_rule(stem_width: int) -> str | None:
    """Width rule: an even width, because the first convolution has half of it."""
    return "the stem's first convolution has half of this width, so it must be even" if stem_width % 2 else None


def one_conv_cost(kernel_size: int, pads: bool, in_chans: int, stem_width: int, height: int, width: int) -> Costs:
    """One convolution of stride 4, with or without padding of the image to multiples of 4, and a LayerNorm."""
    pixels = -(-height // 4) * -(-width // 4)
    pixels_in = 16 * pixels if pads else height * width
    return (
        convolution("stem", in_chans, stem_width, kernel_size, pixels, pixels_in=pixels_in),
        layer_norm(stem_width, pixels, "stem"),
    )


def one_conv_live(pads: bool, in_chans: int, stem_width: int, height: int, width: int) -> int:
    """The maximum of: the image with channels last and its padded copy; the image and the map; the map before and after
    its norm."""
    tokens = -(-height // 4) * -(-width // 4)
    image, filled = in_chans * height * width, in_chans * 16 * tokens
    read = filled if pads else image
    return max(image + (read != image) * filled, read + stem_width * tokens, 2 * stem_width * tokens)


def _one_conv(label: str, source: str, kernel_size: int, padding: int) -> Stem:
    pads = kernel_size > 2 * padding + 1  # otherwise the convolution's padding suffices
    cost, live = partial(one_conv_cost, kernel_size, pads), partial(one_conv_live, pads)
    return Stem(label, source, cost, lambda stem_width: None, live)


STEM: dict[str, Stem] = {
    "two_conv": Stem(
        "two 3×3 of stride 2", "arXiv 2111.01236, section 3.1", two_conv_cost, two_conv_width_rule, two_conv_live
    ),
    "conv7": _one_conv("7×7 of stride 4", "arXiv 2105.15203, section 3.1", 7, 3),
    "conv7_cswin": _one_conv("7×7 of stride 4, padding 2", "arXiv 2107.00652, section 3.1", 7, 2),
    "patchify": _one_conv("4×4 of stride 4", "arXiv 2010.11929, section 3.1", 4, 0),
}
