"""Diversity-enhanced shortcut (DES): a Kronecker-factored, non-linear map parallel to attention.

Source: arXiv 2111.01236, section 3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.packed import PackedLinear
from hrvit_lab.parts.shortcut import kronecker_factors

DENSE_UP_TO = 64
"""Up to this width, one full matrix product is faster in inference than products with the small factors."""


class DES(nn.Module):
    """C channels as a k × p matrix: a linear on p, GELU, a linear on k.

    A shortcut adds its output to that of attention, so that the sum needs no separate operator.

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
        """Both linears with the activation: (B, H, W, C) → (n, k, p)."""
        y_npk = self.right(x_BHWC.reshape(-1, self.k, self.p)).transpose(1, 2).contiguous()
        return self.left(F.gelu(y_npk)).transpose(1, 2)  # OpenVINO does not support mT

    def served(self) -> nn.Module:
        """The equivalent module for fastest inference, without the bias of ``left`` (see ``bias_of_left``)."""
        return DenseDES(self) if self.k * self.p <= DENSE_UP_TO else ServedDES(self)


def bias_of_left(des: DES) -> Tensor:
    """The contribution of the bias of ``left`` to every token, (C,)."""
    return des.left.bias.detach().repeat_interleave(des.p)


class ServedDES(nn.Module):
    """DES without the bias of ``left``; the second product is accumulated into the output of attention.

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
        """Returns itself, because packing does not speed up such small factors."""
        return self


class DenseDES(nn.Module):
    """DES with both factors expanded to C × C matrices: more multiply-accumulates in fewer, larger products.

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
        """The equivalent module for fastest inference on maps of one shape."""
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
