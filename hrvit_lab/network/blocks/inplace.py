"""Operators that overwrite their first argument if ``inplace`` is set, as in deployed networks.

The output of a submodule may have other references: in a hook, a feature extractor or autograd. Therefore modules
overwrite nothing until ``deploy`` sets their ``inplace``. This saves time: allocating a tensor of several MiB causes a
page fault per 4 KiB, which on a CPU can take longer than the arithmetic.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu(x: Tensor, inplace: bool) -> Tensor:
    """Exact GELU, any shape."""
    return torch.ops.aten.gelu_(x) if inplace else F.gelu(x)


def multiplied(x: Tensor, y: Tensor, inplace: bool) -> Tensor:
    """x · y, for tensors of equal shape."""
    return x.mul_(y) if inplace else x * y


def added(x: Tensor, y: Tensor, inplace: bool) -> Tensor:
    """x + y, in the wider of the two dtypes; nothing is overwritten if they differ, as under autocast."""
    return x.add_(y) if inplace and not _autocast() else x + y


def _autocast() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
