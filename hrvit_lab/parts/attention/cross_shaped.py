"""Costs of attention in horizontal and vertical stripes."""

from hrvit_lab.parts.attention.row import qkv
from hrvit_lab.parts.ops import Cost, Costs, convolution, linear


def stripe_products(dim: int, head_dim: int, stripe: int, along: int, across: int, maps: int = 3) -> Cost:
    """Both products of attention within stripes: ``stripe`` of ``along`` rows, each ``across`` tokens long.

    The last stripe is narrower if ``stripe`` does not divide ``along``; the padded count treats it as full. ``maps`` is
    the number of maps read: query, key and value are three; with shared key and value, two.
    """
    full, remainder = divmod(along, stripe)
    tokens, rest = stripe * across, remainder * across
    heads = dim // head_dim
    macs = 2 * dim * (full * tokens**2 + rest**2)
    padded = 2 * dim * (full + (remainder > 0)) * tokens**2
    activations = heads * (full * tokens**2 + rest**2) + dim * along * across
    return Cost(
        "attention products", "attention", macs=macs, macs_padded=padded, activations=activations,
        inputs=maps * dim * along * across, outputs=dim * along * across, run_as="attention",
    )  # fmt: skip


def cross_shaped_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """Query and value from one linear; half of the channels in horizontal stripes, half in vertical ones."""
    half = dim // 2
    head_dim = min(head_dim, half)
    return (
        linear("attention projection", dim, 2 * dim, height * width),
        stripe_products(half, head_dim, window_size, height, width, maps=2),
        stripe_products(half, head_dim, window_size, width, height, maps=2),
    )


def cross_shaped_qkv_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """The same with a separate key."""
    half = dim // 2
    head_dim = min(head_dim, half)
    return (
        qkv(dim, height * width),
        stripe_products(half, head_dim, window_size, height, width),
        stripe_products(half, head_dim, window_size, width, height),
    )


def cswin_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """The same with a depthwise 3×3 convolution of the values in every stripe. A stripe is no wider than the map."""
    half, pixels = dim // 2, height * width
    head_dim = min(head_dim, half)
    lepe = convolution("attention convolution", half, half, 3, pixels, groups=half)
    return (
        qkv(dim, pixels),
        stripe_products(half, head_dim, min(window_size, height), height, width),
        lepe,
        stripe_products(half, head_dim, min(window_size, width), width, height),
        lepe,
    )


def cross_shaped_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Live elements with shared key and value."""
    return _live(dim, window_size, height, width, batch_size, maps=2, lepe=False)


def cross_shaped_qkv_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Live elements with a separate key."""
    return _live(dim, window_size, height, width, batch_size, maps=3, lepe=False)


def cswin_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Live elements with the output of a convolution."""
    return _live(dim, window_size, height, width, batch_size, maps=3, lepe=True)


def _live(dim: int, stripe: int, height: int, width: int, batch_size: int, *, maps: int, lepe: bool) -> int:
    """Live elements: query, value and optionally key (``maps`` in total), and in addition the maximum of

    - the horizontal stripes;
    - the output of the horizontal half, the rearranged vertical half of the maps, and the vertical stripes;
    - both outputs and their concatenation.
    """
    half = dim // 2 * height * width
    rows, columns = (
        half * _stripes_live(stripe, *sides, batch_size, maps, lepe) // (height * width)
        for sides in ((height, width), (width, height))
    )
    return maps * 2 * half + max(rows, half + maps * half + columns, 4 * half)


def _stripes_live(stripe: int, along: int, across: int, batch_size: int, maps: int, lepe: bool) -> int:
    """Live elements per channel: the output of attention; with a convolution, also its output and the sum.

    If the last stripe is narrower: the maps of whole stripes (rearranged if the batch has several images) and their
    outputs; or all outputs and their concatenation.
    """
    whole = along - along % stripe
    if whole in (0, along):
        return (1 + 2 * lepe) * along * across
    laid_out = maps * (batch_size > 1 and whole > stripe)
    return max((laid_out + 1 + 2 * lepe) * whole, 2 * along) * across


def halves_of_heads(dim: int, head_dim: int) -> str | None:
    """Width rule: two halves of the channels, each with one head or a whole number of heads."""
    if dim % 2:
        return "cross-shaped attention splits the channels into halves, so the width must be even"
    if dim // 2 > head_dim and (dim // 2) % head_dim:
        return f"half the width ({dim // 2}) must be a multiple of head dim {head_dim}"
    return None
