"""Closed-form costs of the stems."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.cost.ops import Costs, convolution, halved, norm


class Stem(NamedTuple):
    """One row of the ``STEM`` table: label, source, ``(in_chans, stem_width, height, width)`` in pixels → costs."""

    label: str
    source: str
    cost: Callable[[int, int, int, int], Costs]
    width_rule: Callable[[int], str | None]


def two_conv_cost(in_chans: int, stem_width: int, height: int, width: int) -> Costs:
    """Two 3×3 convolutions of stride 2, each with BatchNorm, the first to half the width."""
    mid = stem_width // 2
    h2, w2 = halved(height), halved(width)
    return (
        convolution("stem", in_chans, mid, 3, h2 * w2),
        norm(mid, "stem"),
        convolution("stem", mid, stem_width, 3, halved(h2) * halved(w2)),
        norm(stem_width, "stem"),
    )


def two_conv_width_rule(stem_width: int) -> str | None:
    """The first convolution has half the stem's width."""
    return "the stem's first convolution has half its width, so it must be even" if stem_width % 2 else None


STEM: dict[str, Stem] = {
    "two_conv": Stem("two 3×3 of stride 2", "arXiv 2111.01236, section 3.1", two_conv_cost, two_conv_width_rule),
}
