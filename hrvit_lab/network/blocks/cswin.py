"""CSWin's attention: cross-shaped, with locally enhanced positional encoding (LePE) in every stripe.

Source: arXiv 2107.00652, section 3.
"""

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.stripes import cross_shaped_attention
from hrvit_lab.network.blocks.tokens import depthwise
from hrvit_lab.parts.attention.row import num_heads

torch.fx.wrap("cross_shaped_attention")  # it branches on sizes, which are unknown to FX


class CSWin(nn.Module):
    """Cross-shaped attention plus a depthwise 3×3 convolution of the values within each stripe.

    Vertical stripes are transposed, and so is the kernel of ``lepe_columns``. If a stripe is at least as wide as the
    map, this is global attention over all heads, as in CSWin's last stage.

    Args:
        dim: channels; even, and its half at most ``head_dim`` or a multiple of it.
        head_dim: channels per head.
        window_size: stripe width in tokens, ≥ 1; any map is accepted.

    Shape: (B, H, W, C) → attended tokens and values, (B, H, W, C) each.
    """

    inplace = False

    def __init__(self, dim: int, head_dim: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads(dim // 2, head_dim)  # in each half
        self.fused_attn = True
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.lepe_rows = depthwise(dim // 2, 3)
        self.lepe_columns = depthwise(dim // 2, 3)

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        qkv_BHWC = self.to_qkv(x_BHWC)
        lepe = self.lepe_rows, self.lepe_columns
        mixed_BHWC = cross_shaped_attention(
            qkv_BHWC, self.window_size, self.num_heads, lepe=lepe, fused=self.fused_attn, inplace=self.inplace
        )
        return mixed_BHWC, qkv_BHWC.chunk(3, dim=-1)[2]
