"""Diversity-enhanced shortcut: a Kronecker-factored, non-linear map beside attention.

Source: arXiv 2111.01236, section 3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        onto_nkp = onto_BHWC.reshape(-1, self.k, self.p)
        return (onto_nkp + self._factored(x_BHWC)).view(x_BHWC.shape)

    def _factored(self, x_BHWC: Tensor) -> Tensor:
        """The two linears and what is between them: (B, H, W, C) → (n, k, p)."""
        y_npk = self.right(x_BHWC.reshape(-1, self.k, self.p)).transpose(1, 2).contiguous()
        return self.left(F.gelu(y_npk)).transpose(1, 2)  # OpenVINO knows no mT

    def served(self) -> nn.Module:
        """What computes the same in the least time, but for the bias of ``left`` (``bias_of_left``)."""
        return DenseDES(self) if self.k * self.p <= DENSE_UP_TO else ServedDES(self)


def bias_of_left(des: DES) -> Tensor:
    """What the bias of ``left`` adds to every token, (C,)."""
    return des.left.bias.detach().repeat_interleave(des.p)


class ServedDES(nn.Module):
    """DES without the bias of ``left``; its second product is added onto attention's output as it is computed.

    Shape: as DES.
    """

    def __init__(self, des: DES) -> None:
        super().__init__()
        self.right = des.right
        self.left = des.left.weight

    def forward(self, x_BHWC: Tensor, onto_BHWC: Tensor) -> Tensor:
        k, p = len(self.left), self.right.in_features
        y_nkp = torch.ops.aten.gelu_(self.right(x_BHWC.reshape(-1, k, p)))
        left_nkk = self.left.expand(y_nkp.shape[0], k, k)
        return torch.baddbmm(onto_BHWC.reshape(-1, k, p), left_nkk, y_nkp).view(x_BHWC.shape)

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
        y_nc = torch.ops.aten.gelu_(F.linear(x_BHWC.flatten(0, 2), self.right, self.bias))
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
