"""Closed-form costs, width rules and identities of the attention variants."""

from hrvit_lab.parts.attention import cross_shaped, local, tokens, windows
from hrvit_lab.parts.attention.row import Attention, any_width, whole_heads
from hrvit_lab.parts.ops import Costs, batch_norm, convolution, linear


def attention_costs(
    variant: str,
    dim: int,
    head_dim: int,
    window_size: int,
    parallel_conv: bool,
    activation: bool,
    batch_normed: bool,
    height: int,
    width: int,
) -> Costs:
    """Costs of a block's attention: mixer, parallel convolution, output projection and BatchNorm. The activation has no
    cost."""
    pixels = height * width
    costs = ATTENTION[variant].cost(dim, head_dim, window_size, height, width)
    if parallel_conv:
        costs += (convolution("parallel convolution", dim, dim, 3, pixels, groups=dim),)
    costs += (linear("attention projection", dim, dim, pixels),)
    return (*costs, batch_norm(dim, pixels)) if batch_normed else costs


def attention_live(
    variant: str,
    dim: int,
    head_dim: int,
    window_size: int,
    parallel_conv: bool,
    activation: bool,
    batch_normed: bool,
    height: int,
    width: int,
    batch_size: int = 1,
) -> int:
    """Maximum number of live elements without the input, for one image of a batch.

    The maximum is reached in the mixer; in the convolution, where its input and output and the mixer's outputs are
    alive; or in the projection, with two maps.
    """
    row, pixels = ATTENTION[variant], height * width
    beside = (row.held(dim) + 2 * dim * parallel_conv) * pixels
    return max(row.live(dim, head_dim, window_size, height, width, batch_size), beside, 2 * dim * pixels)


def variant_at(variant: str, block: int) -> str:
    """The variant of a branch's ``block``-th block, counted from 0 along all stages."""
    return ATTENTION[variant].even or variant if block % 2 == 0 else variant


def _half_heads(dim: int, head_dim: int, window_size: int) -> tuple[object, ...]:
    return min(head_dim, dim // 2), window_size


def _heads_and_window(dim: int, head_dim: int, window_size: int) -> tuple[object, ...]:
    return min(head_dim, dim), window_size


def _heads(dim: int, head_dim: int, window_size: int) -> tuple[object, ...]:
    return (min(head_dim, dim),)


def _nothing(dim: int, head_dim: int, window_size: int) -> tuple[object, ...]:
    return ()


def _mixed_and_qkv(dim: int) -> int:
    return 4 * dim


ATTENTION: dict[str, Attention] = {
    "cross_shaped": Attention(
        "cross-shaped, key = value",
        "arXiv 2111.01236, section 3.2",
        cross_shaped.cross_shaped_cost,
        cross_shaped.halves_of_heads,
        _half_heads,
        cross_shaped.cross_shaped_live,
        lambda dim: 3 * dim,
    ),
    "cross_shaped_qkv": Attention(
        "cross-shaped",
        "arXiv 2111.01236, its ablation",
        cross_shaped.cross_shaped_qkv_cost,
        cross_shaped.halves_of_heads,
        _half_heads,
        cross_shaped.cross_shaped_qkv_live,
        _mixed_and_qkv,
    ),
    "cswin": Attention(
        "cross-shaped with LePE (CSWin)",
        "arXiv 2107.00652, section 3",
        cross_shaped.cswin_cost,
        cross_shaped.halves_of_heads,
        _half_heads,
        cross_shaped.cswin_live,
        _mixed_and_qkv,
    ),
    "window": Attention(
        "windows (HRFormer)",
        "arXiv 2110.09408, section 3; arXiv 2103.14030, section 3.2",
        windows.window_cost,
        whole_heads,
        _heads_and_window,
        windows.window_live,
        _mixed_and_qkv,
    ),
    "shifted_window": Attention(
        "windows, shifted in every other block (Swin)",
        "arXiv 2103.14030, section 3.2",
        windows.shifted_window_cost,
        whole_heads,
        _heads_and_window,
        windows.shifted_window_live,
        _mixed_and_qkv,
        even="window",
    ),
    "dilated_window": Attention(
        "dilated windows (MaxViT's grid)",
        "arXiv 2204.01697, section 3.2",
        windows.dilated_window_cost,
        whole_heads,
        _heads_and_window,
        windows.dilated_window_live,
        _mixed_and_qkv,
    ),
    "spatial_reduction": Attention(
        "merged keys (MiT)",
        "arXiv 2105.15203, section 3.1",
        tokens.spatial_reduction_cost,
        whole_heads,
        _heads_and_window,
        tokens.spatial_reduction_live,
        lambda dim: dim,  # returns tokens; its values are the input
    ),
    "global": Attention(
        "global",
        "arXiv 1706.03762, section 3.2",
        tokens.global_cost,
        whole_heads,
        _heads,
        tokens.global_live,
        _mixed_and_qkv,
    ),
    "linear": Attention(
        "linear (efficient attention)",
        "arXiv 1812.01243, section 3",
        tokens.linear_cost,
        whole_heads,
        _heads,
        tokens.linear_live,
        _mixed_and_qkv,
    ),
    "depthwise_conv": Attention(
        "none: depthwise 7×7",
        "ours",
        local.depthwise_conv_cost,
        any_width,
        _nothing,
        local.depthwise_conv_live,
        lambda dim: 2 * dim,
    ),
    "identity": Attention(
        "none",
        "ours",
        local.identity_cost,
        any_width,
        _nothing,
        local.identity_live,
        lambda dim: dim,  # returns only the values
    ),
}
