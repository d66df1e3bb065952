"""Closed-form costs, width rules and identities of the attention variants."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.cost.ops import Cost, Costs, batch_norm, convolution, linear


class Attention(NamedTuple):
    """One row of the ``ATTENTION`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(dim, head_dim, window_size, height, width)`` → costs of one attention at that map.
        width_rule: ``(dim, head_dim)`` → why this width does not work, or None.
        identity: ``(dim, head_dim, window_size)`` → the settings that matter to the network built.
        live: ``(dim, window_size, height, width)`` → most elements of maps alive at once beside its input.
    """

    label: str
    source: str
    cost: Callable[[int, int, int, int, int], Costs]
    width_rule: Callable[[int, int], str | None]
    identity: Callable[[int, int, int], tuple[object, ...]]
    live: Callable[[int, int, int, int], int]


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
    """Cross-shaped attention whose key is its value, with the parallel convolution and the output BatchNorm."""
    pixels, half = height * width, dim // 2
    head_dim = min(head_dim, half)
    return (
        linear("attention projection", dim, 2 * dim, pixels),
        stripe_products(half, head_dim, window_size, height, width),
        stripe_products(half, head_dim, window_size, width, height),
        convolution("parallel convolution", dim, dim, 3, pixels, groups=dim),
        linear("attention projection", dim, dim, pixels),
        batch_norm(dim, pixels),
    )


def cross_shaped_live(dim: int, window_size: int, height: int, width: int) -> int:
    """At the BatchNorm: query and value, both halves' outputs, the parallel path, and three steps of the projection."""
    return (2 + 1 + 1 + 3) * dim * height * width


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
    ),
}
