"""Alternatives to DES: no shortcut, and a full-rank linear.

Source: arXiv 2111.01236, section 3.2; the linear, arXiv 2106.15067 (augmented shortcuts).
"""

from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import added


class NoShortcut(nn.Module):
    """No shortcut.

    Shape: (B, H, W, C), and onto (B, H, W, C) → onto, unchanged.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x_BHWC: Tensor, onto_BHWC: Tensor) -> Tensor:
        return onto_BHWC


class LinearShortcut(nn.Module):
    """A linear C → C with bias, added to the output of attention.

    Shape: (B, H, W, C), and onto (B, H, W, C) → (B, H, W, C).
    """

    inplace = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BHWC: Tensor, onto_BHWC: Tensor) -> Tensor:
        return added(self.proj(x_BHWC), onto_BHWC, self.inplace)
