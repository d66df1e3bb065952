"""Cross-resolution fusion: every coming branch is the sum of paths from the previous ones, then GELU.

Source: arXiv 2111.01236, section 3.1; after HRNet (arXiv 1908.07919).
"""

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.blocks.inplace import gelu_over
from hrvit_lab.blocks.tokens import to_image, to_tokens


def downward_path(c_in: int, c_out: int, steps: int) -> nn.Sequential:
    """From a finer branch: depthwise convolution of stride 2^steps, BatchNorm, 1×1 convolution, BatchNorm."""
    stride = 2**steps
    return nn.Sequential(
        nn.Conv2d(c_in, c_in, stride + 1, stride=stride, padding=stride // 2, groups=c_in, bias=False),
        nn.BatchNorm2d(c_in),
        nn.Conv2d(c_in, c_out, 1),
        nn.BatchNorm2d(c_out),
    )


def upward_path(c_in: int, c_out: int) -> nn.Sequential:
    """From a coarser branch, before upsampling: 1×1 convolution, BatchNorm."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out))


class DenseFusion(nn.Module):
    """Every previous branch feeds every coming one.

    Args:
        dims_in: channels of the previous branches, finest first.
        dims_out: channels of the coming ones, at least as many.

    Shape: list of (B, H_j, W_j, dims_in[j]) → list of (B, H_i, W_i, dims_out[i]).
    """

    def __init__(self, dims_in: Sequence[int], dims_out: Sequence[int]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.ModuleList(_path(j, i, c_in, c_out) for j, c_in in enumerate(dims_in))
            for i, c_out in enumerate(dims_out)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        images = [to_image(x_BHWC) for x_BHWC in maps]
        fused = []
        for i, paths in enumerate(self.paths):
            total = images[i] if i < len(images) else None
            for j, path in enumerate(cast(nn.ModuleList, paths)):
                if j != i:
                    y_BCHW = path(images[j])
                    if j > i:
                        y_BCHW = F.interpolate(y_BCHW, size=images[i].shape[-2:], mode="nearest")
                    total = y_BCHW if total is None else y_BCHW.add_(total)
            assert total is not None
            fused.append(to_tokens(gelu_over(total) if len(images) > 1 else F.gelu(total)))
        return fused


def _path(source: int, target: int, c_in: int, c_out: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    return downward_path(c_in, c_out, target - source) if source < target else upward_path(c_in, c_out)
