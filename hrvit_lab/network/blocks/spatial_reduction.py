"""Spatial-reduction attention: all tokens attend to a smaller number of merged tokens.

Source: arXiv 2105.15203, section 3.1 (MiT, the encoder of SegFormer).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.attend import attend
from hrvit_lab.network.blocks.tokens import conv_tokens
from hrvit_lab.parts.attention.row import num_heads

torch.fx.wrap("attend")  # it branches on sizes, which are unknown to FX


class SpatialReductionAttention(nn.Module):
    """Queries of all tokens; keys and values of patches merged by a convolution and normalised.

    Rows and columns that do not fill a whole patch are dropped, as in MiT. A side shorter than a patch is padded with
    zeros to one patch.

    Args:
        dim: channels; at most ``head_dim`` or a multiple of it.
        head_dim: channels per head.
        window_size: side of a patch in tokens, ≥ 1; 1 means no merging.

    Shape: (B, H, W, C) → attended tokens and the input, (B, H, W, C) each. (There are fewer values than tokens.)
    """

    def __init__(self, dim: int, head_dim: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads(dim, head_dim)
        self.fused_attn = True
        self.to_q = nn.Linear(dim, dim)
        self.reduce = nn.Conv2d(dim, dim, window_size, stride=window_size) if window_size > 1 else None
        self.norm = nn.LayerNorm(dim) if window_size > 1 else None
        self.to_kv = nn.Linear(dim, 2 * dim)

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        q_Bnc = self.to_q(x_BHWC).flatten(1, 2)
        k_Bmc, v_Bmc = self.to_kv(self._merged(x_BHWC)).flatten(1, 2).chunk(2, dim=-1)
        out_Bnc = attend(q_Bnc, k_Bmc, v_Bmc, self.num_heads, fused=self.fused_attn)
        return out_Bnc.view(x_BHWC.shape), x_BHWC

    def _merged(self, x_BHWC: Tensor) -> Tensor:
        if self.reduce is None or self.norm is None:
            return x_BHWC
        return self.norm(conv_tokens(self.reduce, padded(x_BHWC, self.window_size)))


def padded(x_BHWC: Tensor, least: int) -> Tensor:
    """The map, padded with zeros at the right and bottom to sides of at least ``least``."""
    _, H, W, _ = x_BHWC.shape
    if least <= H and least <= W:
        return x_BHWC
    return F.pad(x_BHWC, (0, 0, 0, max(0, least - W), 0, max(0, least - H)))


torch.fx.wrap("padded")  # it branches on sizes, which are unknown to FX
