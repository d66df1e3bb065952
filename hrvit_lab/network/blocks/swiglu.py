"""Gated feed-forward networks: one projection of the tokens is multiplied by a gate from another.

Source: arXiv 2002.05202 (SwiGLU); with a depthwise convolution on the gate, arXiv 2311.17132 (ConvGLU).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import multiplied
from hrvit_lab.network.blocks.tokens import conv_tokens, depthwise
from hrvit_lab.parts.ffn import hidden_width


class SwiGLU(nn.Module):
    """``out(SiLU(conv(gate(x))) · value(x))``, three linears.

    Args:
        dim: channels C.
        mlp_ratio: channels of gate and of value are int(C · ratio).
        conv: a depthwise 3×3 convolution of the gate.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    inplace = False

    def __init__(self, dim: int, mlp_ratio: float, *, conv: bool = False) -> None:
        super().__init__()
        hidden = hidden_width(dim, mlp_ratio)
        self.gate = nn.Linear(dim, hidden)
        self.conv = depthwise(hidden, 3) if conv else None
        self.value = nn.Linear(dim, hidden)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.out(multiplied(F.silu(self._gate(x_BHWC), self.inplace), self.value(x_BHWC), self.inplace))

    def _gate(self, x_BHWC: Tensor) -> Tensor:
        gate_BHWC = self.gate(x_BHWC)
        return gate_BHWC if self.conv is None else conv_tokens(self.conv, gate_BHWC)
