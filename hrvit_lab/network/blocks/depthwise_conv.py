"""A depthwise convolution instead of attention.

Source: ours; depthwise 7×7 convolutions as in arXiv 2201.03545 (ConvNeXt).
"""

from torch import Tensor, nn

from hrvit_lab.network.blocks.tokens import conv_tokens, depthwise
from hrvit_lab.parts.attention.local import KERNEL


class DepthwiseConv(nn.Module):
    """Values from one linear, mixed by a depthwise 7×7 convolution.

    Args:
        dim: channels.
        head_dim, window_size: unused.

    Shape: (B, H, W, C) → mixed tokens and values, (B, H, W, C) each.
    """

    def __init__(self, dim: int, head_dim: int, window_size: int) -> None:
        super().__init__()
        self.to_v = nn.Linear(dim, dim)
        self.conv = depthwise(dim, KERNEL)

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        v_BHWC = self.to_v(x_BHWC)
        return conv_tokens(self.conv, v_BHWC), v_BHWC
