"""Patch embeddings: the first module of a branch in every stage. Changes the width and, in a pyramid, halves the map.

Source: arXiv 2111.01236, section 3.2; the dense one, arXiv 2105.15203 (SegFormer), section 3.1.
"""

from torch import Tensor, nn

from hrvit_lab.network.blocks.served_conv import PointwiseConv, as_linear
from hrvit_lab.network.blocks.tokens import conv_tokens, depthwise


class EfficientPatchEmbed(nn.Module):
    """1×1 convolution, depthwise 3×3 convolution, LayerNorm.

    Args:
        c_in, dim: input and output channels.
        stride: of the depthwise convolution.

    Shape: (B, H, W, C_in) → (B, ⌈H/stride⌉, ⌈W/stride⌉, C).
    """

    def __init__(self, c_in: int, dim: int, stride: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(c_in, dim, 1)
        self.depthwise = depthwise(dim, 3, stride=stride)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.norm(conv_tokens(self.depthwise, conv_tokens(self.pointwise, x_BHWC)))

    def served(self) -> nn.Module:
        """The equivalent module for fastest inference."""
        return ServedPatchEmbed(self)


class ServedPatchEmbed(nn.Module):
    """EfficientPatchEmbed whose 1×1 convolution is a linear on tokens.

    Shape: as EfficientPatchEmbed.
    """

    def __init__(self, embed: EfficientPatchEmbed) -> None:
        super().__init__()
        pointwise = embed.pointwise  # submodules were converted first
        self.linear = pointwise.linear if isinstance(pointwise, PointwiseConv) else as_linear(pointwise)
        self.depthwise, self.norm = embed.depthwise, embed.norm

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.norm(conv_tokens(self.depthwise, self.linear(x_BHWC)))


class DensePatchEmbed(nn.Module):
    """One dense 3×3 convolution, LayerNorm.

    Args, shape: as EfficientPatchEmbed.
    """

    def __init__(self, c_in: int, dim: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, dim, 3, stride=stride, padding=1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.norm(conv_tokens(self.conv, x_BHWC))


class BarePatchEmbed(nn.Module):
    """A 1×1 convolution, used without a patch embedding where width or size must change.

    Args, shape: as EfficientPatchEmbed.
    """

    def __init__(self, c_in: int, dim: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, dim, 1, stride=stride)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return conv_tokens(self.conv, x_BHWC)


def no_patch_embed(c_in: int, dim: int, stride: int) -> nn.Module:
    """An identity if width and size stay the same, else a `BarePatchEmbed`."""
    return nn.Identity() if c_in == dim and stride == 1 else BarePatchEmbed(c_in, dim, stride)
