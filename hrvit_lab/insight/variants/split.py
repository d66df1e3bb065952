"""Shared by the variants: numbers of tokens, and channels by head."""

import torch
from torch import Tensor

from hrvit_lab.insight.heads import Size


def numbered(size: Size, device: torch.device) -> Tensor:
    """The numbers of the tokens of a map, row by row, (H, W)."""
    return torch.arange(size[0] * size[1], device=device).view(size)


def split_heads(x_HWC: Tensor, heads: int) -> Tensor:
    """(H, W, C) → (heads, tokens, channels per head); heads are contiguous channels."""
    return x_HWC.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(0, 1)
