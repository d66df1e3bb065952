"""MixCFN: a feed-forward network with two depthwise kernels, each on half of its hidden channels.

Source: arXiv 2111.01236, section 3.2, with kernels 3×3 and 5×5; other pairs after arXiv 1907.09595 (MixConv).
"""

from collections.abc import Sequence
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import gelu_over
from hrvit_lab.network.blocks.packed import PackedConv, PackedLinear
from hrvit_lab.network.blocks.tokens import conv_tokens, depthwise
from hrvit_lab.parts.ffn import hidden_width

FEW_TOKENS = 1024
"""Below so many tokens in a batch, served, one convolution of the larger kernel takes less time than one of each."""


class MixCFN(nn.Module):
    """Linear, two depthwise convolutions side by side, GELU, linear.

    The halves are kept apart from the first linear to the last: each takes its rows of one weight and its columns of
    the other, so nothing is split or concatenated in memory.

    Args:
        dim: channels C.
        mlp_ratio: hidden channels are int(C · ratio), an even number.
        kernels: sides of the convolutions' kernels, odd, the smaller first; the convolutions are called by them:
            ``conv3`` and ``conv5``. (Of two equal ones, all channels in one convolution are the same network: MixFFN.)

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, dim: int, mlp_ratio: float, kernels: tuple[int, int] = (3, 5)) -> None:
        super().__init__()
        hidden = hidden_width(dim, mlp_ratio)
        self.kernels = kernels
        self.fc1 = nn.Linear(dim, hidden)
        for kernel in kernels:
            self.add_module(f"conv{kernel}", depthwise(hidden // 2, kernel))
        self.fc2 = nn.Linear(hidden, dim)

    @property
    def convs(self) -> list[nn.Conv2d]:
        """The convolutions of the first and of the second half."""
        return [getattr(self, f"conv{kernel}") for kernel in self.kernels]

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return halves(x_BHWC, self.fc1, self.convs, self.fc2)

    def served(self) -> nn.Module:
        """What computes the same in the least time."""
        return ServedMixCFN(self)


def halves(x_BHWC: Tensor, fc1: nn.Linear, convs: Sequence[nn.Conv2d], fc2: nn.Linear) -> Tensor:
    """Each half of the hidden channels through its own convolution: (B, H, W, C) → (B, H, W, C)."""
    conv_a, conv_b = convs
    w1a, w1b = fc1.weight.chunk(2)
    b1a, b1b = fc1.bias.chunk(2)
    w2a, w2b = fc2.weight.chunk(2, dim=1)
    a_nc = gelu_over(conv_tokens(conv_a, F.linear(x_BHWC, w1a, b1a))).flatten(0, 2)
    b_nc = gelu_over(conv_tokens(conv_b, F.linear(x_BHWC, w1b, b1b))).flatten(0, 2)
    return torch.addmm(F.linear(a_nc, w2a, fc2.bias), b_nc, w2b.t()).view(x_BHWC.shape)


class ServedMixCFN(nn.Module):
    """MixCFN that, on small maps, runs both kernels as one of the larger size, the smaller one padded with zeros.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, ffn: MixCFN) -> None:
        super().__init__()
        self.fc1, self.fc2 = ffn.fc1, ffn.fc2
        self.conv_a, self.conv_b = small, large = ffn.convs
        half, side, margin = small.out_channels, ffn.kernels[1], (ffn.kernels[1] - ffn.kernels[0]) // 2
        self.conv = depthwise(2 * half, side).to(small.weight)
        with torch.no_grad():
            self.conv.weight[:half] = F.pad(small.weight, [margin] * 4)
            self.conv.weight[half:] = large.weight
            self.conv.bias.copy_(torch.cat((small.bias, large.bias)))  # type: ignore[union-attr,arg-type]

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if x_BHWC.shape[:3].numel() < FEW_TOKENS:
            return self.fc2(gelu_over(conv_tokens(self.conv, self.fc1(x_BHWC))))
        return halves(x_BHWC, self.fc1, (self.conv_a, self.conv_b), self.fc2)

    def packed(self, shape: torch.Size) -> nn.Module:
        """What computes the same in the least time on maps of one shape."""
        return PackedMixCFN(self, shape)


class PackedMixCFN(nn.Module):
    """ServedMixCFN, packed for maps of one shape: all hidden channels in one convolution, or each half in its own.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, ffn: ServedMixCFN, shape: torch.Size) -> None:
        super().__init__()
        convs = [ffn.conv] if shape[:3].numel() < FEW_TOKENS else [ffn.conv_a, ffn.conv_b]
        into = zip(ffn.fc1.weight.chunk(len(convs)), ffn.fc1.bias.chunk(len(convs)), strict=True)
        out = zip(ffn.fc2.weight.chunk(len(convs), dim=1), (ffn.fc2.bias, None), strict=False)  # that bias only once
        self.parts = nn.ModuleList(map(PackedHidden, into, convs, out, repeat(shape)))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        first, *others = self.parts
        total_BHWC = first(x_BHWC)
        for part in others:
            total_BHWC = part(x_BHWC, total_BHWC)
        return total_BHWC


class PackedHidden(nn.Module):
    """The way of some hidden channels through a MixCFN.

    Args:
        into, out: weight and bias of both linears, as far as they concern these channels.
        shape: of the maps, (B, H, W, C).

    Shape: (B, H, W, C) and, to add the result to, the same → (B, H, W, C).
    """

    def __init__(
        self, into: tuple[Tensor, Tensor], conv: nn.Conv2d, out: tuple[Tensor, Tensor | None], shape: torch.Size
    ) -> None:
        super().__init__()
        B, H, W, _ = shape
        self.fc1 = PackedLinear(*into, shape)
        self.conv = PackedConv(conv, torch.Size((B, conv.in_channels, H, W)), "gelu")
        self.fc2 = PackedLinear(*out, torch.Size((B, H, W, conv.in_channels)))

    def forward(self, x_BHWC: Tensor, onto_BHWC: Tensor | None = None) -> Tensor:
        hidden_BHWC = conv_tokens(self.conv, self.fc1(x_BHWC))
        return self.fc2(hidden_BHWC) if onto_BHWC is None else self.fc2.onto(hidden_BHWC, onto_BHWC)
