"""Cross-shaped attention with separate query, key and value.

Source: arXiv 2111.01236, whose ablation compares it with sharing key and value.
"""

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.stripes import cross_shaped_attention
from hrvit_lab.parts.attention.row import num_heads

torch.fx.wrap("cross_shaped_attention")  # it branches on sizes, which are unknown to FX


class CrossShapedQKV(nn.Module):
    """Query, key and value from one linear; half of the channels in horizontal stripes, half in vertical ones.

    Args:
        dim: channels; even, and its half at most ``head_dim`` or a multiple of it.
        head_dim: channels per head.
        window_size: stripe width in tokens, ≥ 1; any map is accepted.

    Shape: (B, H, W, C) → attended tokens and values, (B, H, W, C) each.
    """

    def __init__(self, dim: int, head_dim: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads(dim // 2, head_dim)  # in each half
        self.fused_attn = True
        self.to_qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        qkv_BHWC = self.to_qkv(x_BHWC)
        mixed_BHWC = cross_shaped_attention(qkv_BHWC, self.window_size, self.num_heads, fused=self.fused_attn)
        return mixed_BHWC, qkv_BHWC.chunk(3, dim=-1)[2]
