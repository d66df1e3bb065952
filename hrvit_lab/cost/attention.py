"""Closed-form costs, width rules and identities of the attention variants."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.cost.ops import Cost, Costs, batch_norm, convolution, linear


class Attention(NamedTuple):
    """One row of the ``ATTENTION`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(dim, head_dim, window_size, height, width)`` → costs of the mixer at that map, with its projections.
        width_rule: ``(dim, head_dim)`` → why this width does not work, or None.
        identity: ``(dim, head_dim, window_size)`` → the settings that matter to the network built.
        live: ``(dim, head_dim, window_size, height, width)`` → most elements of maps alive at once inside the mixer,
            beside its input.
        held: ``(dim,)`` → channels of what it returns and keeps alive: mixed tokens and values.
        even: the variant whose place the first, third, … block of a branch takes, where blocks alternate.
    """

    label: str
    source: str
    cost: Callable[[int, int, int, int, int], Costs]
    width_rule: Callable[[int, int], str | None]
    identity: Callable[[int, int, int], tuple[object, ...]]
    live: Callable[[int, int, int, int, int], int]
    held: Callable[[int], int]
    even: str = ""


def attention_costs(
    variant: str,
    dim: int,
    head_dim: int,
    window_size: int,
    parallel_conv: bool,
    batch_normed: bool,
    height: int,
    width: int,
) -> Costs:
    """A block's whole attention: the mixer, the convolution beside it, the output projection and its BatchNorm."""
    pixels = height * width
    costs = ATTENTION[variant].cost(dim, head_dim, window_size, height, width)
    if parallel_conv:
        costs += (convolution("parallel convolution", dim, dim, 3, pixels, groups=dim),)
    costs += (linear("attention projection", dim, dim, pixels),)
    return (*costs, batch_norm(dim, pixels)) if batch_normed else costs


def attention_live(
    variant: str, dim: int, head_dim: int, window_size: int, parallel_conv: bool, height: int, width: int
) -> int:
    """Most elements alive at once beside the input: in the mixer; in the convolution, whose input and output stand
    beside what the mixer returned; or in the projection, two maps at a time."""
    row, pixels = ATTENTION[variant], height * width
    beside = (row.held(dim) + 2 * dim * parallel_conv) * pixels
    return max(row.live(dim, head_dim, window_size, height, width), beside, 2 * dim * pixels)


def variant_at(variant: str, block: int) -> str:
    """The variant of a branch's ``block``-th block, counted from 0 along all stages."""
    return ATTENTION[variant].even or variant if block % 2 == 0 else variant


def stripe_products(
    dim: int, head_dim: int, stripe: int, along: int, across: int, part: str = "attention products"
) -> Cost:
    """Both products of attention within stripes: ``stripe`` of ``along`` rows, each ``across`` tokens long.

    The last stripe is narrower when ``stripe`` does not divide ``along``; padded, it would be full.
    """
    full, remainder = divmod(along, stripe)
    tokens, rest = stripe * across, remainder * across
    heads = dim // head_dim
    macs = 2 * dim * (full * tokens**2 + rest**2)
    padded = 2 * dim * (full + (remainder > 0)) * tokens**2
    activations = heads * (full * tokens**2 + rest**2) + dim * along * across
    return Cost(
        part, "attention", macs=macs, macs_padded=padded, activations=activations,
        inputs=2 * dim * along * across, outputs=dim * along * across, run_as="attention",
    )  # fmt: skip


def cross_shaped_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """Query and value from one linear; half of the channels in horizontal stripes, half in vertical ones."""
    half = dim // 2
    head_dim = min(head_dim, half)
    return (
        linear("attention projection", dim, 2 * dim, height * width),
        stripe_products(half, head_dim, window_size, height, width),
        stripe_products(half, head_dim, window_size, width, height),
    )


def cross_shaped_live(dim: int, head_dim: int, window_size: int, height: int, width: int) -> int:
    """Query and value; the horizontal half's output; the vertical half's query, value and output, laid out twice."""
    return (2 * dim + dim // 2 + 4 * (dim // 2)) * height * width


def cross_shaped_width_rule(dim: int, head_dim: int) -> str | None:
    """Two halves of channels, each one head or a whole number of heads."""
    if dim % 2:
        return "cross-shaped attention splits the channels in halves, so the width must be even"
    if dim // 2 > head_dim and (dim // 2) % head_dim:
        return f"half the width ({dim // 2}) must be a multiple of head dim {head_dim}"
    return None


ATTENTION: dict[str, Attention] = {
    "cross_shaped": Attention(
        "cross-shaped, key = value",
        "arXiv 2111.01236, section 3.2",
        cross_shaped_cost,
        cross_shaped_width_rule,
        lambda dim, head_dim, window_size: (min(head_dim, dim // 2), window_size),
        cross_shaped_live,
        lambda dim: 3 * dim,
    ),
}
