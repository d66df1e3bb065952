"""Attention within stripes of rows, and cross-shaped attention (rows and columns).

Source: arXiv 2107.00652, section 3 (CSWin).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.attend import attend
from hrvit_lab.network.blocks.inplace import added
from hrvit_lab.network.blocks.tokens import conv_tokens


def stripe_attention(
    maps_BHWC: Sequence[Tensor],
    stripe: int,
    num_heads: int,
    *,
    lepe: nn.Conv2d | None = None,
    fused: bool = True,
    inplace: bool = False,
) -> Tensor:
    """Attend within stripes of ``stripe`` rows.

    If ``stripe`` does not divide H, the last stripe has fewer rows. There is no padding and no mask.

    Args:
        maps_BHWC: query, key and value, (B, H, W, C) each; or query and value, which is also the key.
        stripe: rows in a stripe, ≥ 1.
        num_heads: divides C.
        lepe: convolution of the values within every stripe, with zero padding at the stripe's border; its output is
            added to that of attention.
        inplace: overwrite the convolution's output.
    Returns:
        (B, H, W, C).
    """
    H = maps_BHWC[0].shape[1]
    rest = H % stripe
    if not rest or rest == H:
        return _even_stripes(maps_BHWC, rest or stripe, num_heads, lepe, fused, inplace)
    whole = [x_BHWC[:, : H - rest] for x_BHWC in maps_BHWC]
    left_over = [x_BHWC[:, H - rest :] for x_BHWC in maps_BHWC]
    both = (
        _even_stripes(whole, stripe, num_heads, lepe, fused, inplace),
        _even_stripes(left_over, rest, num_heads, lepe, fused, inplace),
    )
    return torch.cat(both, dim=1)


def _even_stripes(
    maps_BHWC: Sequence[Tensor], stripe: int, num_heads: int, lepe: nn.Conv2d | None, fused: bool, inplace: bool
) -> Tensor:
    """``stripe_attention`` where ``stripe`` divides H."""
    B, H, W, C = maps_BHWC[0].shape
    q_Bnc, k_Bnc, *own = (x_BHWC.reshape(-1, stripe * W, C) for x_BHWC in maps_BHWC)
    v_Bnc = own[0] if own else k_Bnc
    out_Bnc = attend(q_Bnc, k_Bnc, v_Bnc, num_heads, fused=fused)
    if lepe is not None:
        local_BhWc = conv_tokens(lepe, v_Bnc.unflatten(1, (stripe, W)))
        out_Bnc = added(local_BhWc, out_Bnc.unflatten(1, (stripe, W)), inplace)
    return out_Bnc.reshape(B, H, W, C)


def cross_shaped_attention(
    qkv_BHWC: Tensor,
    stripe: int,
    num_heads: int,
    *,
    lepe: tuple[nn.Conv2d | None, nn.Conv2d | None] = (None, None),
    fused: bool = True,
    inplace: bool = False,
) -> Tensor:
    """Half of the channels attend in horizontal stripes, half in vertical ones.

    Args:
        qkv_BHWC: query, key and value, (B, H, W, 3C), C even.
        stripe: width of a stripe in tokens, ≥ 1.
        num_heads: of each half; divides C / 2.
        lepe: of each half, as in ``stripe_attention``.
        inplace: overwrite the convolutions' outputs.
    Returns:
        (B, H, W, C).
    """
    rows_BHW3c, columns_BHW3c = qkv_BHWC.unflatten(-1, (3, 2, -1)).unbind(-2)
    rows = stripe_attention(rows_BHW3c.unbind(-2), stripe, num_heads, lepe=lepe[0], fused=fused, inplace=inplace)
    columns_BWH3c = columns_BHW3c.transpose(1, 2)  # made contiguous next, so that its windows are views
    columns = stripe_attention(
        columns_BWH3c.contiguous().unbind(-2), stripe, num_heads, lepe=lepe[1], fused=fused, inplace=inplace
    )
    return torch.cat((rows, columns.transpose(1, 2)), dim=-1)
