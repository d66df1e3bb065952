"""Dense convolutions as matrix products, for inference where that is faster.

A convolution reorders its weights at every call, which on small maps takes as long as the arithmetic.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.packed import PackedConv
from hrvit_lab.network.blocks.tokens import to_image, to_tokens

FEW_POSITIONS = 128
"""Below this number of output positions in a batch, unfolding the input is faster than reordering the weights."""


def served_conv(conv: nn.Conv2d) -> nn.Module:
    """The equivalent module for fastest inference, which may be the convolution itself."""
    if conv.groups > 1 or conv.dilation != (1, 1):
        return conv
    if conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0):
        return PointwiseConv(as_linear(conv))
    if conv.stride == (2, 2) and conv.padding == (1, 1) and conv.kernel_size == (3, 3):
        return UnfoldedConv(conv)
    return conv


def as_linear(conv: nn.Conv2d) -> nn.Linear:
    """A 1×1 convolution of stride 1 as a linear of tokens, with the convolution's own bias."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1).contiguous())
    linear.bias = conv.bias  # type: ignore[assignment]
    return linear


class PointwiseConv(nn.Module):
    """A 1×1 convolution as a linear on tokens.

    Shape: (B, C_in, H, W) → (B, C, H, W), both channels last in memory.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return to_image(self.linear(to_tokens(x_BCHW)))


class UnfoldedConv(nn.Module):
    """A 3×3 convolution of stride 2 that, on small maps, unfolds its input into rows of one matrix product.

    Shape: (B, C_in, H, W) → (B, C, ⌈H/2⌉, ⌈W/2⌉), both channels last in memory.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x_BCHW: Tensor) -> Tensor:
        B, C, H, W = x_BCHW.shape
        rows, columns = (H + 1) // 2, (W + 1) // 2
        positions = B * rows * columns
        # In a graph with dynamic sizes the number is a symbol. Other runtimes would gather the patches one by one, and
        # have convolutions that reorder their weights once.
        if torch.compiler.is_exporting() or not isinstance(positions, int) or positions >= FEW_POSITIONS:
            return self.conv(x_BCHW)
        x_BHWC = F.pad(to_tokens(x_BCHW), (0, 0, 1, 1, 1, 1))
        # The 3 × 3 × C_in inputs of each position: three rows of 3 · C_in numbers that are adjacent in memory.
        b, h, w, _ = x_BHWC.stride()
        patches = x_BHWC.as_strided((B, rows, columns, 3, 3 * C), (b, 2 * h, 2 * w, h, 1))
        weight = self.conv.weight.permute(0, 2, 3, 1).flatten(1)  # no copy: its channels are last in memory too
        return to_image(F.linear(patches.flatten(3), weight, self.conv.bias))

    def packed(self, shape: torch.Size) -> nn.Module:
        """The packed convolution, which does not reorder weights at every call."""
        return PackedConv(self.conv, shape)
