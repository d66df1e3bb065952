"""Layers of the segmentation heads: convolution with norm and activation, concatenation of maps, classifier."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.fusion import resized


class ConvNormReLU(nn.Module):
    """Convolution without bias, BatchNorm, ReLU; keeps the map's size (odd ``kernel_size``).

    Shape: (B, c_in, H, W) → (B, c_out, H, W).
    """

    batch_norms = (("conv", "bn"),)
    inplace = False

    def __init__(self, c_in: int, c_out: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x_BCHW)), self.inplace)


def pixel_classifier(width: int, num_classes: int) -> nn.Module:
    """1×1 convolution from ``width`` channels to ``num_classes``; for 0 an identity."""
    return nn.Conv2d(width, num_classes, 1) if num_classes else nn.Identity()


def sum_resized(maps: Iterable[Tensor]) -> Tensor:
    """Maps (B, C, H_i, W_i) → (B, C, H_0, W_0): resized to the first map's size (bilinear) and added."""
    first, *others = maps
    total = first
    for x_BCHW in others:
        total = total + resized(x_BCHW, first, "bilinear")
    return total


def concatenate(maps: Iterable[Tensor]) -> Tensor:
    """Maps (B, C_i, H_i, W_i) → (B, Σ C_i, H_0, W_0): resized to the first map's size (bilinear) and concatenated."""
    first, *others = maps
    return torch.cat([first, *(resized(x_BCHW, first, "bilinear") for x_BCHW in others)], dim=1)
