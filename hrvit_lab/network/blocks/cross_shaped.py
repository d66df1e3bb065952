"""Cross-shaped attention with shared key and value: half of the channels in horizontal stripes, half in vertical ones.

Source: arXiv 2111.01236, section 3.2 (HRViT); stripes after arXiv 2107.00652 (CSWin).
"""

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.attend import attend_served
from hrvit_lab.network.blocks.stripes import stripe_attention
from hrvit_lab.parts.attention.row import num_heads

torch.fx.wrap("stripe_attention")  # it branches on sizes, which are unknown to FX


def _transposed(x_BHWC: Tensor) -> Tensor:
    """(B, H, W, C) → (B, W, H, C), contiguous, so that its windows are views."""
    return x_BHWC.transpose(1, 2).contiguous()


class CrossShaped(nn.Module):
    """Cross-shaped attention with shared key and value.

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
        self.to_qv = nn.Linear(dim, 2 * dim)

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        q_BHWC, v_BHWC = self.to_qv(x_BHWC).chunk(2, dim=-1)
        q_rows, q_columns = q_BHWC.chunk(2, dim=-1)
        v_rows, v_columns = v_BHWC.chunk(2, dim=-1)
        rows = self._stripes(q_rows, v_rows)
        columns = self._stripes(_transposed(q_columns), _transposed(v_columns)).transpose(1, 2)
        return torch.cat((rows, columns), dim=-1), v_BHWC

    def _stripes(self, q_BHWC: Tensor, v_BHWC: Tensor) -> Tensor:
        return stripe_attention((q_BHWC, v_BHWC), self.window_size, self.num_heads, fused=self.fused_attn)

    def served(self) -> nn.Module:
        """The equivalent module for fastest inference."""
        return ServedCrossShaped(self)


class ServedCrossShaped(nn.Module):
    """Cross-shaped attention that computes both directions as one batch if the map is square and divisible into
    stripes.

    Shape: as CrossShaped.
    """

    def __init__(self, mixer: CrossShaped) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        mixer = self.mixer
        B, H, W, C = x_BHWC.shape
        if not isinstance(H, int) or H != W or H % (stripe := min(mixer.window_size, H)):
            return mixer(x_BHWC)  # in a graph with dynamic sizes, H is a symbol
        qv_BHWC = mixer.to_qv(x_BHWC)
        q_rows, q_columns, v_rows, v_columns = qv_BHWC.chunk(4, dim=-1)
        # Twice the batch size: the map and its transpose.
        maps = torch.stack((q_rows, q_columns.transpose(1, 2), v_rows, v_columns.transpose(1, 2)))
        c, h = C // 2, mixer.num_heads
        q_Bhnd, v_Bhnd = maps.view(2, -1, stripe * W, h, c // h).transpose(2, 3).unbind()
        out_Bhnd = attend_served(q_Bhnd, v_Bhnd, fused=mixer.fused_attn)
        rows, columns = out_Bhnd.transpose(1, 2).reshape(2, B, H, W, c).unbind()
        return torch.cat((rows, columns.transpose(1, 2)), dim=-1), qv_BHWC.narrow(-1, C, C)
