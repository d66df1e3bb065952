"""What a row of the ``ATTENTION`` table holds, and the sums that several rows share."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.parts.ops import Cost, Costs, linear


class Attention(NamedTuple):
    """One row of the ``ATTENTION`` table.

    Attributes:
        label: for people.
        source: paper and section.
        cost: ``(dim, head_dim, window_size, height, width)`` → costs of the mixer at that map, with its projections.
        width_rule: ``(dim, head_dim)`` → why this width does not work, or None.
        identity: ``(dim, head_dim, window_size)`` → the settings that matter to the network built.
        live: ``(dim, head_dim, window_size, height, width, batch_size)`` → most elements of maps alive at once inside
            the mixer, beside its input, for one image; what the images of a batch share is split among them.
        held: ``(dim,)`` → channels of what it returns and keeps alive: mixed tokens and values.
        even: the variant whose place the first, third, … block of a branch takes, where blocks alternate.
    """

    label: str
    source: str
    cost: Callable[[int, int, int, int, int], Costs]
    width_rule: Callable[[int, int], str | None]
    identity: Callable[[int, int, int], tuple[object, ...]]
    live: Callable[[int, int, int, int, int, int], int]
    held: Callable[[int], int]
    even: str = ""


def num_heads(dim: int, head_dim: int) -> int:
    """Heads of ``head_dim`` channels; one of fewer channels, where there are no more.

    >>> num_heads(64, 32), num_heads(16, 32)
    (2, 1)
    """
    return max(1, dim // head_dim)


def whole_heads(dim: int, head_dim: int) -> str | None:
    """The width rule of heads over all channels."""
    if dim > head_dim and dim % head_dim:
        return f"the width must be a multiple of head dim {head_dim}"
    return None


def any_width(dim: int, head_dim: int) -> None:
    """The width rule of what has no heads."""


def products(
    dim: int,
    head_dim: int,
    pairs: int,
    pixels: int,
    *,
    pairs_padded: int | None = None,
    keys: int | None = None,
    params: int = 0,
) -> Cost:
    """Both products of attention, with query, key and value of their own.

    Args:
        pairs: (token, token it sees), summed over all windows.
        pixels: tokens.
        pairs_padded: the same with windows padded to full size (None: as many).
        keys: tokens that are seen (None: all).
        params: what is added to the scores.
    """
    padded = pairs if pairs_padded is None else pairs_padded
    out = dim * pixels
    return Cost(
        "attention products", "attention", params=params, macs=2 * dim * pairs, macs_padded=2 * dim * padded,
        activations=num_heads(dim, head_dim) * pairs + out,
        inputs=out + 2 * dim * (pixels if keys is None else keys), outputs=out, run_as="attention",
    )  # fmt: skip


def qkv(dim: int, pixels: int) -> Cost:
    """Query, key and value from one linear."""
    return linear("attention projection", dim, 3 * dim, pixels)
