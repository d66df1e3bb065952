"""Costs of attention to all tokens: global, with spatial reduction, or linear."""

from hrvit_lab.parts.attention.row import products, qkv
from hrvit_lab.parts.ops import Cost, Costs, convolution, layer_norm, linear


def global_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """One linear; every token attends to all tokens."""
    pixels = height * width
    return qkv(dim, pixels), products(dim, head_dim, pixels**2, pixels)


def global_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Query, key, value and output."""
    return 4 * dim * height * width


def merged_pixels(ratio: int, height: int, width: int) -> int:
    """Number of tokens after merging patches of ``ratio`` × ``ratio``: only whole patches, but at least one per side.

    >>> merged_pixels(4, 9, 3)
    2
    """
    return max(1, height // ratio) * max(1, width // ratio)


def spatial_reduction_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """Queries from all tokens; keys and values from merged ones."""
    pixels, merged = height * width, merged_pixels(window_size, height, width)
    merging: Costs = ()
    if window_size > 1:
        merging = (
            convolution("attention projection", dim, dim, window_size, merged, pixels_in=pixels),
            layer_norm(dim, merged),
        )
    return (
        linear("attention projection", dim, dim, pixels),
        *merging,
        linear("attention projection", dim, 2 * dim, merged),
        products(dim, head_dim, pixels * merged, pixels, keys=merged),
    )


def spatial_reduction_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Query, key, value and output; or query and the padded and merged map; or query and the merged, normalized and
    projected maps."""
    pixels, merged = height * width, merged_pixels(window_size, height, width)
    padded = max(height, window_size) * max(width, window_size) * (min(height, width) < window_size)
    return dim * max(2 * pixels + 2 * merged, pixels + padded + 2 * merged, pixels + 3 * merged)


def linear_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """One linear. Per head, the product of keys and values is a (head dim × head dim) matrix, and the product of
    queries and this matrix is the output."""
    pixels = height * width
    head_dim = min(head_dim, dim)
    macs, context, out = 2 * dim * head_dim * pixels, dim * head_dim, dim * pixels
    return (
        qkv(dim, pixels),
        Cost(
            "attention products", "attention", macs=macs, macs_padded=macs, activations=context + out,
            inputs=3 * out, outputs=out, run_as="bmm",
        ),
    )  # fmt: skip


def linear_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Query, key and value, and the output twice (before and after the heads are merged)."""
    return 5 * dim * height * width
