"""Attention within non-overlapping windows, with a bias for every relative position.

Source: arXiv 2103.14030, section 3.2 (Swin); arXiv 2110.09408, section 3 (HRFormer).
"""

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.attend import attend
from hrvit_lab.parts.attention.row import num_heads
from hrvit_lab.parts.attention.windows import Span, spans


class WindowAttention(nn.Module):
    """Attention within windows, counted from the top left corner of the map.

    Windows at the border may be smaller; they use the biases of their actual offsets. There is no padding and no mask.
    A map smaller than the window is one window.

    Args:
        dim: channels; at most ``head_dim`` or a multiple of it.
        head_dim: channels per head.
        window_size: side of a window in tokens, ≥ 1; any map is accepted.
        shift: rows and columns of the first window, 0 ≤ shift < window_size; 0: it is a full window. An axis that is
            not longer than the window is not shifted.

    Shape: (B, H, W, C) → attended tokens and values, (B, H, W, C) each.
    """

    def __init__(self, dim: int, head_dim: int, window_size: int, shift: int = 0) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        self.num_heads = num_heads(dim, head_dim)
        self.fused_attn = True
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.relative_bias = nn.Parameter(torch.empty(self.num_heads, 2 * window_size - 1, 2 * window_size - 1))
        nn.init.trunc_normal_(self.relative_bias, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay: the table of relative positions (timm's convention)."""
        return {"relative_bias"}

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        qkv_BHWC = self.to_qkv(x_BHWC)
        mixed_BHWC = window_attention(
            qkv_BHWC, self.relative_bias, self.window_size, self.shift, self.num_heads, fused=self.fused_attn
        )
        return mixed_BHWC, qkv_BHWC.chunk(3, dim=-1)[2]


def window_attention(
    qkv_BHWC: Tensor, bias_hyx: Tensor, window_size: int, shift: int, num_heads: int, *, fused: bool
) -> Tensor:
    """Query, key and value, (B, H, W, 3C), attended within windows: (B, H, W, C)."""
    _, H, W, _ = qkv_BHWC.shape

    def part(row: Span, column: Span) -> Tensor:
        """Attention in a part of the map that is divided into windows of one shape: (B, h, w, C)."""
        bias_hnm = relative_bias(bias_hyx, row.size, column.size)
        q_Bnc, k_Bnc, v_Bnc = windows(qkv_BHWC, row, column).chunk(3, dim=-1)
        out_Bnc = attend(q_Bnc, k_Bnc, v_Bnc, num_heads, bias_hnm=bias_hnm, fused=fused)
        del q_Bnc, k_Bnc, v_Bnc  # freed before the output is rearranged
        i, j = (row.stop - row.start) // row.size, (column.stop - column.start) // column.size
        out_BijyxC = out_Bnc.unflatten(1, (row.size, column.size)).unflatten(0, (-1, i, j))
        return out_BijyxC.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    columns = spans(W, window_size, shift)
    rows = [_joined([part(row, column) for column in columns], dim=2) for row in spans(H, window_size, shift)]
    return _joined(rows, dim=1)


torch.fx.wrap("window_attention")  # it branches on sizes, which are unknown to FX


def windows(x_BHWC: Tensor, row: Span, column: Span) -> Tensor:
    """Split a map into windows of one shape: (B, H, W, C) → (B · windows, rows · columns, C)."""
    part_BhwC = x_BHWC[:, row.start : row.stop, column.start : column.stop]
    grid_BiyjxC = part_BhwC.unflatten(2, (-1, column.size)).unflatten(1, (-1, row.size))
    return grid_BiyjxC.transpose(2, 3).reshape(-1, row.size * column.size, x_BHWC.shape[-1])


def relative_bias(bias_hyx: Tensor, rows: int, columns: int) -> Tensor:
    """Biases between all pairs of tokens of a window, by their relative position.

    The entry of tokens (y, x) and (y', x') is the table's value at offset (y - y', x - x'); offset 0 is in its middle.

    Args:
        bias_hyx: (h, 2w - 1, 2w - 1), w ≥ rows, columns.
    Returns:
        (h, rows · columns, rows · columns).
    """
    middle = bias_hyx.shape[-1] // 2
    near_hyx = bias_hyx[:, middle - rows + 1 : middle + rows, middle - columns + 1 : middle + columns]
    # Unfolding the table from offset y - (rows - 1) gives y' in descending order.
    return near_hyx.unfold(1, rows, 1).unfold(2, columns, 1).flip(3, 4).flatten(3).flatten(1, 2)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)
