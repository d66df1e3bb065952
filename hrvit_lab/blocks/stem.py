"""Stems: from the image to the first map, at stride 4.

Source: arXiv 2111.01236, section 3.1.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.blocks.tokens import channels_last, to_tokens


class TwoConvStem(nn.Module):
    """Two 3×3 convolutions of stride 2, each with BatchNorm and ReLU.

    Shape: (B, C_in, H, W) → (B, ⌈⌈H/2⌉/2⌉, ⌈⌈W/2⌉/2⌉, stem_width).
    """

    batch_norms = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, in_chans: int, stem_width: int) -> None:
        super().__init__()
        mid = stem_width // 2
        self.conv1 = nn.Conv2d(in_chans, mid, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, stem_width, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(stem_width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.relu_(self.bn1(self.conv1(channels_last(x_BCHW))))
        return to_tokens(F.relu_(self.bn2(self.conv2(x_BCHW))))
