"""MixCFN: a feed-forward network with two depthwise kernels, each on half of its hidden channels.

Source: arXiv 2111.01236, section 3.2, with kernels 3×3 and 5×5; other pairs after arXiv 1907.09595 (MixConv).
"""

import re
from collections.abc import Mapping
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.packed import PackedConv, PackedLinear
from hrvit_lab.network.blocks.tokens import conv_tokens, depthwise
from hrvit_lab.parts.ffn import hidden_width

FEW_TOKENS = 1024
"""Below this number of tokens in a batch, one convolution with the larger kernel is faster than two in inference."""


class MixCFN(nn.Module):
    """Linear, two parallel depthwise convolutions, GELU, linear.

    Each half of the hidden channels is a separate module with its own linears, so that no tensor is split or
    concatenated. The halves are named after their kernels: ``half3`` and ``half5``.

    Args:
        dim: channels C.
        mlp_ratio: hidden channels are int(C · ratio), an even number.
        kernels: sides of the convolutions' kernels, odd, the smaller first. (Two equal kernels would be MixFFN.)

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, dim: int, mlp_ratio: float, kernels: tuple[int, int] = (3, 5)) -> None:
        super().__init__()
        hidden = hidden_width(dim, mlp_ratio)
        self.kernels = kernels
        # Initialised before the split, because the range of fc2's random weights depends on the number of hidden
        # channels.
        fc1 = nn.Linear(dim, hidden)
        convs = [depthwise(hidden // 2, kernel) for kernel in kernels]
        fc2 = nn.Linear(hidden, dim)
        into = zip(fc1.weight.chunk(2), fc1.bias.chunk(2), strict=True)
        out = zip(fc2.weight.chunk(2, dim=1), (fc2.bias, None), strict=True)
        for kernel, first, conv, last in zip(kernels, into, convs, out, strict=True):
            self.add_module(f"half{kernel}", Half(_linear(*first), conv, _linear(*last)))

    @property
    def halves(self) -> list["Half"]:
        """The half with the smaller kernel and the half with the larger kernel."""
        return [getattr(self, f"half{kernel}") for kernel in self.kernels]

    def forward(self, x_BHWC: Tensor) -> Tensor:
        small, large = self.halves
        return small(x_BHWC) + large(x_BHWC)

    def served(self) -> nn.Module:
        """The equivalent module for fastest inference."""
        return ServedMixCFN(self)


class Half(nn.Module):
    """One half of a MixCFN: linear, depthwise convolution, GELU, linear. ``fc2`` of the second half has no bias.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, fc1: nn.Linear, conv: nn.Conv2d, fc2: nn.Linear) -> None:
        super().__init__()
        self.fc1, self.conv, self.fc2 = fc1, conv, fc2

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.fc2(F.gelu(conv_tokens(self.conv, self.fc1(x_BHWC))))


def cut_in_halves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict in which MixCFNs are not split, as in published checkpoints, to one with halves.

    A MixCFN that is not split has ``fc1``, ``fc2`` and two convolutions: ``conv.conv_3`` and ``conv.conv_5``, or
    ``conv3`` and ``conv5``.

    >>> whole = {"ffn.fc1.bias": torch.ones(4), "ffn.conv3.bias": torch.ones(2), "ffn.conv5.bias": torch.ones(2)}
    >>> list(cut_in_halves(whole))
    ['ffn.half3.fc1.bias', 'ffn.half5.fc1.bias', 'ffn.half3.conv.bias', 'ffn.half5.conv.bias']
    """
    found = {name: match for name in tensors if (match := _WHOLE.fullmatch(name))}
    kernels: dict[str, set[str]] = {}
    for match in found.values():
        kernels.setdefault(match["path"], set()).update({match["kernel"]} - {None})
    cut: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = found.get(name)
        halves = sorted(kernels[match["path"]]) if match else []
        if match is None or len(halves) != 2:
            cut[name] = tensor
            continue
        path, fc, kind = match["path"], match["fc"], match["kind"]
        if fc is None:
            cut[f"{path}half{match['kernel']}.conv.{kind}"] = tensor
        elif (fc, kind) == ("fc2", "bias"):
            cut[f"{path}half{halves[0]}.fc2.bias"] = tensor
        elif tensor.layout == torch.strided and not tensor.is_nested and tensor.ndim > (dim := int(fc == "fc2")):
            for kernel, part in zip(halves, tensor.chunk(2, dim), strict=False):
                cut[f"{path}half{kernel}.{fc}.{kind}"] = part
        else:
            cut[name] = tensor  # not a linear's weight: reported as unexpected
    return cut


_WHOLE = re.compile(r"(?P<path>(?:.*\.)?ffn\.)(?:conv(?:\.conv_)?(?P<kernel>\d)|(?P<fc>fc[12]))\.(?P<kind>weight|bias)")


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear with these weights."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear


class ServedMixCFN(nn.Module):
    """MixCFN that, on small maps, runs both kernels as one convolution; the smaller kernel is padded with zeros.

    Its linears are not split. On large maps, each half uses its rows of the first weight and its columns of the second.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, ffn: MixCFN) -> None:
        super().__init__()
        small, large = ffn.halves
        self.fc1 = _linear(torch.cat((small.fc1.weight, large.fc1.weight)), torch.cat((small.fc1.bias, large.fc1.bias)))
        self.fc2 = _linear(torch.cat((small.fc2.weight, large.fc2.weight), dim=1), small.fc2.bias)
        self.conv_a, self.conv_b = small.conv, large.conv
        half, side, margin = small.conv.out_channels, ffn.kernels[1], (ffn.kernels[1] - ffn.kernels[0]) // 2
        self.conv = depthwise(2 * half, side).to(small.conv.weight)
        with torch.no_grad():
            self.conv.weight[:half] = F.pad(small.conv.weight, [margin] * 4)
            self.conv.weight[half:] = large.conv.weight
            self.conv.bias.copy_(torch.cat((small.conv.bias, large.conv.bias)))  # type: ignore[union-attr,arg-type]

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, _ = x_BHWC.shape
        tokens = B * H * W
        if isinstance(tokens, int) and tokens < FEW_TOKENS:  # in a graph with dynamic sizes it is a symbol
            return self.fc2(torch.ops.aten.gelu_(conv_tokens(self.conv, self.fc1(x_BHWC))))
        w1a, w1b = self.fc1.weight.chunk(2)
        b1a, b1b = self.fc1.bias.chunk(2)
        w2a, w2b = self.fc2.weight.chunk(2, dim=1)
        a_nc = torch.ops.aten.gelu_(conv_tokens(self.conv_a, F.linear(x_BHWC, w1a, b1a))).flatten(0, 2)
        b_nc = torch.ops.aten.gelu_(conv_tokens(self.conv_b, F.linear(x_BHWC, w1b, b1b))).flatten(0, 2)
        return torch.addmm(F.linear(a_nc, w2a, self.fc2.bias), b_nc, w2b.t()).view(x_BHWC.shape)

    def packed(self, shape: torch.Size) -> nn.Module:
        """The equivalent module for fastest inference on maps of one shape."""
        return PackedMixCFN(self, shape)


class PackedMixCFN(nn.Module):
    """ServedMixCFN, packed for maps of one shape, with one convolution for all hidden channels or one for each half.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, ffn: ServedMixCFN, shape: torch.Size) -> None:
        super().__init__()
        convs = [ffn.conv] if shape[:3].numel() < FEW_TOKENS else [ffn.conv_a, ffn.conv_b]
        into = zip(ffn.fc1.weight.chunk(len(convs)), ffn.fc1.bias.chunk(len(convs)), strict=True)
        out = zip(ffn.fc2.weight.chunk(len(convs), dim=1), (ffn.fc2.bias, None), strict=False)  # add the bias only once
        self.parts = nn.ModuleList(map(PackedHidden, into, convs, out, repeat(shape)))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        first, *others = self.parts
        total_BHWC = first(x_BHWC)
        for part in others:
            total_BHWC = part(x_BHWC, total_BHWC)
        return total_BHWC


class PackedHidden(nn.Module):
    """A MixCFN's computation for some of its hidden channels.

    Args:
        into, out: weight and bias of both linears for these channels.
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
