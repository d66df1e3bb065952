"""The type of rows of the ``ATTENTION`` table, and functions used by several rows."""

from collections.abc import Callable
from typing import NamedTuple

from hrvit_lab.parts.ops import Cost, Costs, linear


class Attention(NamedTuple):
    """One row of the ``ATTENTION`` table.

    Attributes:
        label: text shown to users.
        source: paper and section.
        cost: ``(dim, head_dim, window_size, height, width)`` → costs of the mixer on such a map, including its
            projections.
        width_rule: ``(dim, head_dim)`` → the reason why a width is invalid, or None.
        identity: ``(dim, head_dim, window_size)`` → the settings on which the built network depends.
        live: ``(dim, head_dim, window_size, height, width, batch_size)`` → maximum number of live elements inside the
            mixer without its input, for one image; elements shared by a batch are divided by the batch size.
        held: ``(dim,)`` → channels of its outputs: mixed tokens and values.
        even: for alternating blocks, the variant used in the first, third, … block of a branch.
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
    """Number of heads with ``head_dim`` channels; one if there are fewer channels.

    >>> num_heads(64, 32), num_heads(16, 32)
    (2, 1)
    """
    return max(1, dim // head_dim)


def whole_heads(dim: int, head_dim: int) -> str | None:
    """Width rule: a whole number of heads."""
    if dim > head_dim and dim % head_dim:
        return f"the width must be a multiple of head dim {head_dim}"
    return None


def any_width(dim: int, head_dim: int) -> None:
    """Width rule of variants without heads: any width."""


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
    """Both products of attention, with separate query, key and value.

    Args:
        pairs: number of (query token, key token) pairs, summed over all windows.
        pixels: tokens.
        pairs_padded: the same with windows padded to full size (None: equal).
        keys: number of key tokens (None: all tokens).
        params: parameters of the bias added to the scores.
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
