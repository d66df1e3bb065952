"""Closed-form costs, width rules and identities of the feed-forward variants."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.cost.ops import Costs, convolution, linear, linear_onto


class FFN(NamedTuple):
    """One row of the ``FFN`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(dim, mlp_ratio, height, width)`` → costs at that map; without any there is no such half of a block.
        width_rule: ``(dim, mlp_ratio)`` → why this pair does not work, or None.
        identity: ``(dim, mlp_ratio)`` → the settings that matter to the network built.
        live: ``(dim, mlp_ratio, height, width)`` → most elements of maps alive at once beside its input.
    """

    label: str
    source: str
    cost: Callable[[int, float, int, int], Costs]
    width_rule: Callable[[int, float], str | None]
    identity: Callable[[int, float], tuple[object, ...]]
    live: Callable[[int, float, int, int], int]


def hidden_width(dim: int, mlp_ratio: float) -> int:
    """Hidden channels of a feed-forward network: ``int(dim · mlp_ratio)``."""
    return int(dim * mlp_ratio)


def mixcfn_cost(dim: int, mlp_ratio: float, height: int, width: int) -> Costs:
    """Linear, depthwise 3×3 beside 5×5 on halves of the channels, GELU, linear summed from both halves."""
    pixels, hidden = height * width, hidden_width(dim, mlp_ratio)
    half = hidden // 2
    return (
        linear("ffn", dim, hidden, pixels, run_as="function"),
        convolution("ffn", half, half, 3, pixels, groups=half),
        convolution("ffn", half, half, 5, pixels, groups=half),
        linear("ffn", half, dim, pixels, run_as="function"),
        linear_onto("ffn", half, dim, pixels),
    )


def mixcfn_live(dim: int, mlp_ratio: float, height: int, width: int) -> int:
    """One half of the hidden channels beside two steps of the other; or both halves and the two sums of the output."""
    hidden = hidden_width(dim, mlp_ratio)
    return max(3 * (hidden // 2), hidden + 2 * dim) * height * width


def mixcfn_width_rule(dim: int, mlp_ratio: float) -> str | None:
    """Both kernels take half of the hidden channels."""
    hidden = hidden_width(dim, mlp_ratio)
    if hidden < 2 or hidden % 2:
        return f"MixCFN splits its hidden channels in halves, and int({dim} × {mlp_ratio:g}) = {hidden} is not even"
    return None


FFNS: dict[str, FFN] = {
    "mixcfn": FFN(
        "MixCFN (3×3 + 5×5)",
        "arXiv 2111.01236, section 3.2",
        mixcfn_cost,
        mixcfn_width_rule,
        lambda dim, mlp_ratio: (hidden_width(dim, mlp_ratio),),
        mixcfn_live,
    ),
    "none": FFN(
        "none",
        "ours",
        lambda dim, mlp_ratio, height, width: (),
        lambda dim, mlp_ratio: None,
        lambda dim, mlp_ratio: (),
        lambda dim, mlp_ratio, height, width: 0,
    ),
}
