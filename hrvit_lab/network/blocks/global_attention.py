"""Global attention: every token attends to all tokens.

Source: arXiv 1706.03762, section 3.2; on images, arXiv 2010.11929 (ViT).
"""

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.attend import attend
from hrvit_lab.parts.attention.row import num_heads

torch.fx.wrap("attend")  # it branches on sizes, which are unknown to FX


class GlobalAttention(nn.Module):
    """Every token attends to the whole map.

    Args:
        dim: channels; at most ``head_dim`` or a multiple of it.
        head_dim: channels per head.
        window_size: unused.

    Shape: (B, H, W, C) → attended tokens and values, (B, H, W, C) each.
    """

    def __init__(self, dim: int, head_dim: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads(dim, head_dim)
        self.fused_attn = True
        self.to_qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        q_BHWC, k_BHWC, v_BHWC = self.to_qkv(x_BHWC).chunk(3, dim=-1)
        q_Bnc, k_Bnc, v_Bnc = (x.flatten(1, 2) for x in (q_BHWC, k_BHWC, v_BHWC))
        out_Bnc = attend(q_Bnc, k_Bnc, v_Bnc, self.num_heads, fused=self.fused_attn)
        return out_Bnc.view(x_BHWC.shape), v_BHWC
