"""Diversity-enhanced shortcut: a Kronecker-factored, non-linear map beside attention.

Source: arXiv 2111.01236, section 3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import gelu_over
from hrvit_lab.network.blocks.packed import PackedLinear
from hrvit_lab.parts.shortcut import kronecker_factors

DENSE_UP_TO = 64
"""Widths whose factors are so small that, served, one full matrix takes less time than many tiny ones."""


class DES(nn.Module):
    """C channels as a k × p matrix: a linear on p, GELU, a linear on k.

    A shortcut adds itself onto attention's output, so that the sum costs no operator of its own.

    Args:
        dim: channels C, divisible by p (``kronecker_factors``).

    Shape: (B, H, W, C), and onto (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.k, self.p = kronecker_factors(dim)
        self.right = nn.Linear(self.p, self.p)
        self.left = nn.Linear(self.k, self.k)

    def forward(self, x_BHWC: Tensor, onto_BHWC: Tensor) -> Tensor:
        y_nkp = gelu_over(self.right(x_BHWC.reshape(-1, self.k, self.p)))
        left_nkk = self.left.weight.expand(len(y_nkp), self.k, self.k)
        onto_nkp = onto_BHWC.reshape(-1, self.k, self.p)
        if self.left.bias is not None:
            onto_nkp = onto_nkp + self.left.bias[:, None]
        return torch.baddbmm(onto_nkp, left_nkk, y_nkp).view(x_BHWC.shape)

    def take_bias(self) -> Tensor:
        """The bias that this adds to every token, (C,); from now on it doesn't."""
        bias_C = self.left.bias.detach().repeat_interleave(self.p)
        self.left.bias = None  # type: ignore[assignment]
        return bias_C

    def served(self) -> nn.Module:
        """What computes the same in the least time (after ``take_bias``)."""
        return DenseDES(self) if self.k * self.p <= DENSE_UP_TO else self

    def packed(self, shape: torch.Size) -> nn.Module:
        """Itself: factors this small gain nothing from packing."""
        return self


class DenseDES(nn.Module):
    """DES with both factors written out as C × C matrices: more multiply-accumulates, fewer and larger products.

    Shape: as DES.
    """

    def __init__(self, des: DES) -> None:
        super().__init__()
        identity_k, identity_p = (torch.eye(n).to(des.left.weight) for n in (des.k, des.p))
        self.right = nn.Parameter(torch.kron(identity_k, des.right.weight.detach()))
        self.bias = nn.Parameter(des.right.bias.detach().repeat(des.k))
        self.left = nn.Parameter(torch.kron(des.left.weight.detach(), identity_p).t().contiguous())

    def forward(self, x_BHWC: Tensor, onto_BHWC: Tensor) -> Tensor:
        y_nc = gelu_over(F.linear(x_BHWC.flatten(0, 2), self.right, self.bias))
        return torch.addmm(onto_BHWC.flatten(0, 2), y_nc, self.left).view(x_BHWC.shape)

    def packed(self, shape: torch.Size) -> nn.Module:
        """What computes the same in the least time on maps of one shape."""
        return PackedDES(self, shape)


class PackedDES(nn.Module):
    """DenseDES, packed for maps of one shape.

    Shape: as DES.
    """

    def __init__(self, des: DenseDES, shape: torch.Size) -> None:
        super().__init__()
        self.right = PackedLinear(des.right, des.bias, shape, "gelu")
        self.left = PackedLinear(des.left.t(), None, shape)

    def forward(self, x_BHWC: Tensor, onto_BHWC: Tensor) -> Tensor:
        return self.left.onto(self.right(x_BHWC), onto_BHWC)
