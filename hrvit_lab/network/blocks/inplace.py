"""Activations that overwrite a tensor nobody else holds, where no gradient asks for what stood there.

A fresh tensor of several MiB costs a page fault every 4 KiB; on a CPU that can take longer than the arithmetic.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu_over(x: Tensor) -> Tensor:
    """Exact GELU of a tensor that the caller gives away, any shape."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def hardswish_over(x: Tensor) -> Tensor:
    """Hardswish of a tensor that the caller gives away, any shape."""
    return F.hardswish(x, inplace=not torch.is_grad_enabled())


def gated_over(gate: Tensor, value: Tensor) -> Tensor:
    """SiLU(gate) · value of two tensors of one shape, of which the caller gives the gate away."""
    if torch.is_grad_enabled():
        return F.silu(gate) * value
    return torch.ops.aten.silu_(gate).mul_(value)
