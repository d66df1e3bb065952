"""Operators that overwrite their first argument in the served form of a part, and leave it alone in the plain one.

What a submodule returned may be held by others: by a hook, a feature extractor or autograd. So a part overwrites
nothing until ``deploy`` sets its ``inplace``. There it saves time: a new tensor of several MiB costs a page fault every
4 KiB, which on a CPU can take longer than the arithmetic.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu(x: Tensor, inplace: bool) -> Tensor:
    """Exact GELU, any shape."""
    return torch.ops.aten.gelu_(x) if inplace else F.gelu(x)


def multiplied(x: Tensor, y: Tensor, inplace: bool) -> Tensor:
    """x · y, of one shape."""
    return x.mul_(y) if inplace else x * y


def added(x: Tensor, y: Tensor, inplace: bool) -> Tensor:
    """x + y, in the wider dtype of both: under autocast, where they differ, nothing is overwritten."""
    return x.add_(y) if inplace and not _autocast() else x + y


def _autocast() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
