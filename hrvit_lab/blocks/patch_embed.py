"""Patch embeddings: what opens a branch in every stage, changing its width.

Source: arXiv 2111.01236, section 3.2.
"""

from torch import Tensor, nn

from hrvit_lab.blocks.tokens import conv_tokens, depthwise


class EfficientPatchEmbed(nn.Module):
    """1×1 convolution, depthwise 3×3 convolution, LayerNorm.

    Shape: (B, H, W, C_in) → (B, H, W, C).
    """

    def __init__(self, c_in: int, dim: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(c_in, dim, 1)
        self.depthwise = depthwise(dim, 3)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.norm(conv_tokens(self.depthwise, conv_tokens(self.pointwise, x_BHWC)))
