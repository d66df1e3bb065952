"""HRFormer's feed-forward network: convolutions throughout, with BatchNorm and GELU after each.

Source: arXiv 2110.09408, section 3.2.
"""

from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import gelu
from hrvit_lab.network.blocks.tokens import depthwise, to_image, to_tokens
from hrvit_lab.parts.ffn import hidden_width


class HRFormerFFN(nn.Module):
    """1×1, depthwise 3×3 and 1×1 convolution without bias, each followed by BatchNorm and GELU.

    Args:
        dim: channels C.
        mlp_ratio: hidden channels are int(C · ratio).

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    batch_norms = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
    inplace = False

    def __init__(self, dim: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = hidden_width(dim, mlp_ratio)
        self.conv1 = nn.Conv2d(dim, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = depthwise(hidden, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, dim, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BCHW = gelu(self.bn1(self.conv1(to_image(x_BHWC))), self.inplace)
        x_BCHW = gelu(self.bn2(self.conv2(x_BCHW)), self.inplace)
        return to_tokens(gelu(self.bn3(self.conv3(x_BCHW)), self.inplace))
