"""MixFFN: a feed-forward network with a depthwise 3×3 convolution, which also provides positional information.

Source: arXiv 2105.15203 (SegFormer), section 3.1.
"""

from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import gelu
from hrvit_lab.network.blocks.tokens import conv_tokens, depthwise
from hrvit_lab.parts.ffn import hidden_width


class MixFFN(nn.Module):
    """Linear, depthwise 3×3 convolution, GELU, linear.

    Args:
        dim: channels C.
        mlp_ratio: hidden channels are int(C · ratio).

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    inplace = False

    def __init__(self, dim: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = hidden_width(dim, mlp_ratio)
        self.fc1 = nn.Linear(dim, hidden)
        self.conv = depthwise(hidden, 3)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.fc2(gelu(conv_tokens(self.conv, self.fc1(x_BHWC)), self.inplace))
