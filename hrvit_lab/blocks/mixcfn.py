"""MixCFN: a feed-forward network with depthwise 3×3 and 5×5 convolutions on halves of its hidden channels.

Source: arXiv 2111.01236, section 3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.blocks.inplace import gelu_over
from hrvit_lab.blocks.tokens import conv_tokens, depthwise
from hrvit_lab.cost.ffn import hidden_width

FEW_TOKENS = 1024
"""Below so many tokens in a batch, served, one 5×5 convolution takes less time than a 3×3 and a 5×5."""


class MixCFN(nn.Module):
    """Linear, two depthwise convolutions side by side, GELU, linear.

    The halves are kept apart from the first linear to the last: each takes its rows of one weight and its columns of
    the other, so nothing is split or concatenated in memory.

    Args:
        dim: channels C.
        mlp_ratio: hidden channels are int(C · ratio), an even number.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, dim: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = hidden_width(dim, mlp_ratio)
        self.fc1 = nn.Linear(dim, hidden)
        self.conv3 = depthwise(hidden // 2, 3)
        self.conv5 = depthwise(hidden // 2, 5)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        w1a, w1b = self.fc1.weight.chunk(2)
        b1a, b1b = self.fc1.bias.chunk(2)
        w2a, w2b = self.fc2.weight.chunk(2, dim=1)
        a_nc = gelu_over(conv_tokens(self.conv3, F.linear(x_BHWC, w1a, b1a))).flatten(0, 2)
        b_nc = gelu_over(conv_tokens(self.conv5, F.linear(x_BHWC, w1b, b1b))).flatten(0, 2)
        y_nc = torch.addmm(F.linear(a_nc, w2a, self.fc2.bias), b_nc, w2b.t())
        return y_nc.view(x_BHWC.shape)

    def served(self) -> nn.Module:
        """What computes the same in the least time."""
        return ServedMixCFN(self)


class ServedMixCFN(nn.Module):
    """MixCFN that, on small maps, runs both kernels as one 5×5 convolution, the 3×3 padded with zeros.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, ffn: MixCFN) -> None:
        super().__init__()
        self.halves = ffn
        half = ffn.conv3.out_channels
        self.conv = depthwise(2 * half, 5).to(ffn.conv3.weight)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:half, :, 1:4, 1:4] = ffn.conv3.weight
            self.conv.weight[half:] = ffn.conv5.weight
            self.conv.bias.copy_(torch.cat((ffn.conv3.bias, ffn.conv5.bias)))  # type: ignore[union-attr,arg-type]

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if x_BHWC.shape[:3].numel() >= FEW_TOKENS:
            return self.halves(x_BHWC)
        return self.halves.fc2(gelu_over(conv_tokens(self.conv, self.halves.fc1(x_BHWC))))
