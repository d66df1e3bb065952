"""The standard feed-forward network of transformers, applied to each token separately.

Source: arXiv 1706.03762, section 3.3, with GELU (arXiv 1606.08415).
"""

from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import gelu
from hrvit_lab.parts.ffn import hidden_width


class MLP(nn.Module):
    """Linear, GELU, linear.

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
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x_BHWC), self.inplace))
