"""Cross-resolution fusion: every coming branch is the sum of paths from previous ones, then GELU.

Source: arXiv 2111.01236, section 3.1; after HRNet (arXiv 1908.07919).
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import gelu_over
from hrvit_lab.network.blocks.tokens import to_image, to_tokens
from hrvit_lab.parts.fusion import Sources


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


class Fusion(nn.Module):
    """Chosen previous branches feed every coming one.

    Args:
        dims_in: channels of the previous branches, finest first.
        dims_out: channels of the coming ones, at least as many.
        sources: per coming branch the previous ones that feed it, at least one.
        upsample: interpolation from a coarser branch, ``"nearest"`` or ``"bilinear"``.

    Shape: list of (B, H_j, W_j, dims_in[j]) → list of (B, H_i, W_i, dims_out[i]).
    """

    def __init__(
        self, dims_in: Sequence[int], dims_out: Sequence[int], sources: Sequence[Sequence[int]], upsample: str
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.paths = nn.ModuleList(
            nn.ModuleDict({str(j): _path(j, i, dims_in[j], c_out) for j in sources[i]})
            for i, c_out in enumerate(dims_out)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        images = [to_image(x_BHWC) for x_BHWC in maps]
        fused = []
        for i, paths in enumerate(self.paths):
            total = images[i] if str(i) in cast(nn.ModuleDict, paths) else None
            for j, path in cast(nn.ModuleDict, paths).items():
                if int(j) != i:
                    y_BCHW = path(images[int(j)])
                    if int(j) > i:
                        y_BCHW = resized(y_BCHW, images[i], self.upsample)
                    total = y_BCHW if total is None else y_BCHW.add_(total)
            assert total is not None
            # The map that came in is not ours to write to.
            alone = i < len(images) and total is images[i]
            fused.append(to_tokens(F.gelu(total) if alone else gelu_over(total)))
        return fused


def paths_fusion(
    sources: Callable[[int, int, bool], Sources],
    dims_in: Sequence[int],
    dims_out: Sequence[int],
    upsample: str,
    last: bool,
) -> Fusion:
    """The fusion whose paths ``sources(branches_in, branches_out, last)`` names."""
    return Fusion(dims_in, dims_out, sources(len(dims_in), len(dims_out), last), upsample)


def resized(x_BCHW: Tensor, like_BCHW: Tensor, upsample: str) -> Tensor:
    """Interpolate a map to the height and width of another, ``"nearest"`` or ``"bilinear"``."""
    corners = None if upsample == "nearest" else False
    return F.interpolate(x_BCHW, size=like_BCHW.shape[-2:], mode=upsample, align_corners=corners)


def _path(source: int, target: int, c_in: int, c_out: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    return downward_path(c_in, c_out, target - source) if source < target else upward_path(c_in, c_out)
