"""Diversity-enhanced shortcut: a Kronecker-factored, non-linear map beside attention.

Source: arXiv 2111.01236, section 3.2.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.cost.shortcut import kronecker_factors


class DES(nn.Module):
    """C channels as a k × p matrix: a linear on p, GELU, a linear on k.

    Args:
        dim: channels C, divisible by p (``kronecker_factors``).

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.k, self.p = kronecker_factors(dim)
        self.right = nn.Linear(self.p, self.p)
        self.left = nn.Linear(self.k, self.k)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        y_nkp = self.right(x_BHWC.reshape(-1, self.k, self.p))
        y_npk = self.left(F.gelu(y_nkp.transpose(1, 2)))
        return y_npk.transpose(1, 2).reshape(x_BHWC.shape)
