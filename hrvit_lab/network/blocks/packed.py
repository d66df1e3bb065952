"""Linears and convolutions with weights in oneDNN's packed layout, for inputs of one size on a CPU.

Without packing, oneDNN reorders the weights at every call, and PyTorch uses MKL for float32 matrix products. The packed
modules call the operators that ``torch.compile`` uses for frozen weights. A small product takes less time than such an
operator needs to start, so its weight is not packed. The modules have no gradient, and cannot be moved to another
device. A copy, or a module that is loaded from a file, packs its weights again: on another processor, their layout is
another.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "gelu"]
FEWEST_MACS: dict[Activation, int] = {"none": 4_000_000, "gelu": 1_000_000}
"""Products of at least so many multiply-accumulates are faster with packed weights, in float32, by the activation that
follows (``tests/bench_pack.py``). In bfloat16 all are."""


class Packed(nn.Module, ABC):
    """A module with a weight in oneDNN's layout, which is unpacked to copy or save the module.

    Attributes:
        weight: packed, or plain if that is faster.
        bias: or None.
        shape: of the inputs that the layout is optimized for.
    """

    weight: Tensor
    bias: Tensor | None
    shape: torch.Size

    @abstractmethod
    def layout_of(self, plain: Tensor) -> Tensor:
        """The weight in oneDNN's layout if that is faster."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"weight": self.weight.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.weight = self.layout_of(self.weight)

    def get_extra_state(self) -> dict[str, Tensor | None]:
        """What ``state_dict`` has of this module: weight and bias, unpacked."""
        return {"weight": self.weight.to_dense(), "bias": self.bias}

    def set_extra_state(self, state: dict[str, Tensor | None]) -> None:
        """What ``load_state_dict`` does with it."""
        weight, bias = state["weight"], state["bias"]
        shapes = [None if tensor is None else tensor.shape for tensor in (weight, bias)]
        if weight is None or shapes != [self.weight.shape, None if self.bias is None else self.bias.shape]:
            raise RuntimeError(f"weight and bias are {shapes[0]} and {shapes[1]}, not those of this packed module")
        self.weight = self.layout_of(weight.to(self.weight.dtype))
        self.bias = None if bias is None else bias.to(self.weight.dtype)


class PackedLinear(Packed):
    """A linear with a fused activation.

    Args:
        weight: (C, C_in), bias: (C,) or None.
        shape: of the inputs that the layout is optimized for, (…, C_in); other shapes work but may be slower.

    Shape: (…, C_in) → (…, C).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, shape: torch.Size, activation: Activation = "none") -> None:
        super().__init__()
        self.shape = shape
        self.activation = activation
        self.weight = self.layout_of(weight.detach().contiguous())
        self.bias = None if bias is None else bias.detach().contiguous()

    def layout_of(self, plain: Tensor) -> Tensor:
        rows = self.shape[:-1].numel()
        if _small(rows * plain.numel(), plain.dtype, self.activation):
            return plain
        return torch.ops.mkldnn._reorder_linear_weight(plain, rows)

    def forward(self, x: Tensor) -> Tensor:
        if not self.weight.is_mkldnn:
            return _activated(F.linear(x, self.weight, self.bias), self.activation)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, self.activation, [], "none")

    def onto(self, x: Tensor, y: Tensor) -> Tensor:
        """y + linear(x), without activation; y has shape (…, C)."""
        assert self.activation == "none"
        if not self.weight.is_mkldnn:
            y = y if self.bias is None else y + self.bias
            return torch.addmm(y.flatten(0, -2), x.flatten(0, -2), self.weight.t()).view(y.shape)
        return torch.ops.mkldnn._linear_pointwise(x, y, self.weight, self.bias, "add")


class PackedConv(Packed):
    """A convolution with a fused activation.

    Args:
        shape: of the inputs that the layout is optimized for, (B, C_in, H, W); other shapes work but may be slower.

    Shape: (B, C_in, H, W) → (B, C, H', W'), both channels last in memory.
    """

    def __init__(self, conv: nn.Conv2d, shape: torch.Size, activation: Activation = "none") -> None:
        super().__init__()
        assert not isinstance(conv.padding, str) and conv.padding_mode == "zeros"
        self.layout = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self.shape = shape
        self.activation = activation
        self.weight = self.layout_of(conv.weight.detach())
        self.bias = None if conv.bias is None else conv.bias.detach()

    def layout_of(self, plain: Tensor) -> Tensor:
        padding, stride, dilation, groups = self.layout
        # Grouped, strided and dilated convolutions run in oneDNN in any case.
        dense = groups == 1 and set(stride) == set(dilation) == {1}
        if dense and _small(self.shape[0] * self.shape[2:].numel() * plain.numel(), plain.dtype, self.activation):
            return plain.contiguous(memory_format=torch.channels_last)
        weight = plain.to_mkldnn()
        return torch._C._nn.mkldnn_reorder_conv2d_weight(weight, *self.layout, self.shape)  # type: ignore[call-arg]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.weight.is_mkldnn:
            padding, stride, dilation, groups = self.layout
            y_BCHW = F.conv2d(x_BCHW, self.weight, self.bias, stride, padding, dilation, groups)
            return _activated(y_BCHW, self.activation)
        return torch.ops.mkldnn._convolution_pointwise(
            x_BCHW, self.weight, self.bias, *self.layout, self.activation, [], "none"
        )


def _small(macs: int, dtype: torch.dtype, activation: Activation) -> bool:
    return dtype == torch.float32 and macs < FEWEST_MACS[activation]


def _activated(x: Tensor, activation: Activation) -> Tensor:
    return torch.ops.aten.gelu_(x) if activation == "gelu" else x
