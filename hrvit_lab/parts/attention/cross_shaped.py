"""Costs of attention in horizontal and vertical stripes."""

from hrvit_lab.parts.attention.row import qkv
from hrvit_lab.parts.ops import Cost, Costs, convolution, linear


def stripe_products(dim: int, head_dim: int, stripe: int, along: int, across: int, maps: int = 3) -> Cost:
    """Both products of attention within stripes: ``stripe`` of ``along`` rows, each ``across`` tokens long.

    The last stripe is narrower when ``stripe`` does not divide ``along``; padded, it would be full. Of ``maps`` read,
    query, key and value are three, and two where the key is the value.
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
    """The same with a key of its own."""
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
    """With a key that is the value."""
    return _live(dim, window_size, height, width, batch_size, maps=2, lepe=False)


def cross_shaped_qkv_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """With a key of its own."""
    return _live(dim, window_size, height, width, batch_size, maps=3, lepe=False)


def cswin_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """With a convolution's output beside attention's."""
    return _live(dim, window_size, height, width, batch_size, maps=3, lepe=True)


def _live(dim: int, stripe: int, height: int, width: int, batch_size: int, *, maps: int, lepe: bool) -> int:
    """Query, value and perhaps key, ``maps`` of them, and: the horizontal stripes; or the horizontal half's output, the
    vertical half of the maps laid out anew, and the vertical stripes; or the outputs of both halves and their union."""
    half = dim // 2 * height * width
    rows, columns = (
        half * _stripes_live(stripe, *sides, batch_size, maps, lepe) // (height * width)
        for sides in ((height, width), (width, height))
    )
    return maps * 2 * half + max(rows, half + maps * half + columns, 4 * half)


def _stripes_live(stripe: int, along: int, across: int, batch_size: int, maps: int, lepe: bool) -> int:
    """Of one channel: attention's output; with a convolution beside it, its output and the sum.

    Where a narrower stripe is left over: the maps of whole stripes, which are laid out anew if there are several in a
    batch, beside their outputs; or all outputs and their union.
    """
    whole = along - along % stripe
    if whole in (0, along):
        return (1 + 2 * lepe) * along * across
    laid_out = maps * (batch_size > 1 and whole > stripe)
    return max((laid_out + 1 + 2 * lepe) * whole, 2 * along) * across


def halves_of_heads(dim: int, head_dim: int) -> str | None:
    """The width rule: two halves of channels, each one head or a whole number of heads."""
    if dim % 2:
        return "cross-shaped attention splits the channels in halves, so the width must be even"
    if dim // 2 > head_dim and (dim // 2) % head_dim:
        return f"half the width ({dim // 2}) must be a multiple of head dim {head_dim}"
    return None
