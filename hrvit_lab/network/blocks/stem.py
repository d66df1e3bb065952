"""Stems: from the image to the first map at stride 4. timm requires the name ``conv1`` for the first convolution.

Source: arXiv 2111.01236, section 3.1; the classes name the sources of other stems.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.tokens import channels_last, to_tokens


class TwoConvStem(nn.Module):
    """Two 3×3 convolutions of stride 2, each with BatchNorm and ReLU.

    Shape: (B, C_in, H, W) → (B, ⌈⌈H/2⌉/2⌉, ⌈⌈W/2⌉/2⌉, stem_width).
    """

    batch_norms = (("conv1", "bn1"), ("conv2", "bn2"))
    inplace = False

    def __init__(self, in_chans: int, stem_width: int) -> None:
        super().__init__()
        mid = stem_width // 2
        self.conv1 = nn.Conv2d(in_chans, mid, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, stem_width, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(stem_width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.relu(self.bn1(self.conv1(channels_last(x_BCHW))), self.inplace)
        return to_tokens(F.relu(self.bn2(self.conv2(x_BCHW)), self.inplace))


class OneConvStem(nn.Module):
    """One convolution of stride 4, LayerNorm.

    Args:
        in_chans, stem_width: input and output channels.
        kernel_size, padding: with ``kernel_size = 2 · padding + 1``, any image gives ⌈H/4⌉ × ⌈W/4⌉ tokens. With less
            padding, images are padded with zeros at the right and bottom to multiples of 4.

    Kernel 7 and padding 3 are SegFormer's (arXiv 2105.15203, section 3.1), padding 2 CSWin's (arXiv 2107.00652,
    section 3.1); kernel 4 without padding cuts patches (arXiv 2010.11929, section 3.1).

    Shape: (B, C_in, H, W) → (B, ⌈H/4⌉, ⌈W/4⌉, stem_width).
    """

    def __init__(self, in_chans: int, stem_width: int, kernel_size: int, padding: int) -> None:
        super().__init__()
        self.pads = kernel_size > 2 * padding + 1
        self.conv1 = nn.Conv2d(in_chans, stem_width, kernel_size, stride=4, padding=padding)
        self.norm = nn.LayerNorm(stem_width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = channels_last(x_BCHW)
        return self.norm(to_tokens(self.conv1(padded(x_BCHW) if self.pads else x_BCHW)))


def padded(x_BCHW: Tensor) -> Tensor:
    """The image, padded with zeros at the right and bottom to multiples of 4."""
    bottom, right = (-side % 4 for side in x_BCHW.shape[-2:])
    return F.pad(x_BCHW, (0, right, 0, bottom)) if right or bottom else x_BCHW


torch.fx.wrap("padded")  # it branches on sizes, which are unknown to FX
