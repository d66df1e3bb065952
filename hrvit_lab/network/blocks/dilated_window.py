"""Attention in dilated windows: tokens with equal remainders modulo the dilation form a window across the whole map.

Source: arXiv 2204.01697, section 3.2 (MaxViT's grid attention).
"""

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.attend import attend
from hrvit_lab.parts.attention.row import num_heads


class DilatedWindowAttention(nn.Module):
    """Attention among tokens whose rows and columns are congruent modulo the dilation.

    The dilation of an axis is the smallest with at most ``window_size`` tokens per window: ceil(H / window_size) for
    rows, ceil(W / window_size) for columns. If it does not divide the axis, windows of the first remainders have one
    token more than the others. Each group of windows has its own size, without padding or mask.

    Args:
        dim: channels; at most ``head_dim`` or a multiple of it.
        head_dim: channels per head.
        window_size: maximum number of tokens of a window along an axis, ≥ 1; any map size is supported.

    Shape: (B, H, W, C) → attended tokens and values, (B, H, W, C) each.
    """

    def __init__(self, dim: int, head_dim: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads(dim, head_dim)
        self.fused_attn = True
        self.to_qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        qkv_BHWC = self.to_qkv(x_BHWC)
        mixed_BHWC = dilated_window_attention(qkv_BHWC, self.window_size, self.num_heads, fused=self.fused_attn)
        return mixed_BHWC, qkv_BHWC.chunk(3, dim=-1)[2]


def dilated_window_attention(qkv_BHWC: Tensor, window_size: int, num_heads: int, *, fused: bool) -> Tensor:
    """Query, key and value, (B, H, W, 3C), attended within dilated windows: (B, H, W, C)."""
    _, H, W, _ = qkv_BHWC.shape
    row_dilation, column_dilation = (-(-side // window_size) for side in (H, W))

    def attended(qkv_BygxfC: Tensor) -> Tensor:
        """y × x tokens in each of g × f groups."""
        _, y, g, x, f, _ = qkv_BygxfC.shape
        qkv_Bnc = qkv_BygxfC.permute(0, 2, 4, 1, 3, 5).flatten(3, 4).flatten(0, 2)
        q_Bnc, k_Bnc, v_Bnc = qkv_Bnc.chunk(3, dim=-1)
        out_Bnc = attend(q_Bnc, k_Bnc, v_Bnc, num_heads, fused=fused)
        return out_Bnc.unflatten(1, (y, x)).unflatten(0, (-1, g, f)).permute(0, 3, 1, 4, 2, 5)

    rows = [
        merge_congruent([attended(part) for part in split_congruent(part_BygWC, 3, column_dilation)], 3)
        for part_BygWC in split_congruent(qkv_BHWC, 1, row_dilation)
    ]
    return merge_congruent(rows, 1)


torch.fx.wrap("dilated_window_attention")  # it branches on sizes, which are unknown to FX


def split_congruent(x: Tensor, dim: int, dilation: int) -> list[Tensor]:
    """Split an axis by the remainder modulo ``dilation`` into two: (position in the group, group).

    Returns:
        One tensor if all groups have equal length; else one of the longer groups and one of the shorter groups.
    """
    size, more = x.shape[dim] // dilation, x.shape[dim] % dilation  # no divmod: sizes are tensors in a jit trace
    whole = x.narrow(dim, 0, size * dilation).unflatten(dim, (size, dilation))
    if not more:
        return [whole]
    last = x.narrow(dim, size * dilation, more).unsqueeze(dim)
    longer = torch.cat((whole.narrow(dim + 1, 0, more), last), dim)
    return [longer, whole.narrow(dim + 1, more, dilation - more)]


def merge_congruent(parts: list[Tensor], dim: int) -> Tensor:
    """The inverse of ``split_congruent``."""
    if len(parts) == 1:
        return parts[0].flatten(dim, dim + 1)
    longer, shorter = parts
    size = shorter.shape[dim]
    whole = torch.cat((longer.narrow(dim, 0, size), shorter), dim + 1).flatten(dim, dim + 1)
    return torch.cat((whole, longer.select(dim, size)), dim)
