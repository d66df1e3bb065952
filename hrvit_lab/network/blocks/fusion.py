"""Cross-resolution fusion: every output branch is the sum of paths from input branches, followed by GELU.

Source: arXiv 2111.01236, section 3.1; after HRNet (arXiv 1908.07919).
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import added, gelu
from hrvit_lab.network.blocks.tokens import depthwise, to_image, to_tokens
from hrvit_lab.parts.fusion import Sources


def downward_path(c_in: int, c_out: int, steps: int) -> nn.Sequential:
    """From a finer branch: depthwise convolution of stride 2^steps, BatchNorm, 1×1 convolution, BatchNorm."""
    stride = 2**steps
    return nn.Sequential(
        depthwise(c_in, stride + 1, stride=stride, bias=False),
        nn.BatchNorm2d(c_in),
        nn.Conv2d(c_in, c_out, 1),
        nn.BatchNorm2d(c_out),
    )


def upward_path(c_in: int, c_out: int) -> nn.Sequential:
    """From a coarser branch, before upsampling: 1×1 convolution, BatchNorm."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out))


class Fusion(nn.Module):
    """Sum paths from selected input branches into every output branch.

    Args:
        dims_in: channels of the input branches, finest first.
        dims_out: channels of the output branches, at least as many.
        sources: indices of the input branches of every output branch, at least one.
        upsample: interpolation from a coarser branch, ``"nearest"`` or ``"bilinear"``.

    Shape: (B, H_j, W_j, dims_in[j]) of every input branch → tuple of (B, H_i, W_i, dims_out[i]).
    """

    inplace = False

    def __init__(
        self, dims_in: Sequence[int], dims_out: Sequence[int], sources: Sequence[Sequence[int]], upsample: str
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.paths = nn.ModuleList(
            nn.ModuleDict({str(j): _path(j, i, dims_in[j], c_out) for j in sources[i]})
            for i, c_out in enumerate(dims_out)
        )

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        images = [to_image(x_BHWC) for x_BHWC in maps]
        return tuple(to_tokens(self._fused(images, target)) for target in range(len(self.paths)))

    def _fused(self, images: list[Tensor], target: int) -> Tensor:
        own, *others = self._sources(target)
        if own != target:
            total = self._resampled(images, own, target)
        elif others:
            total = added(self._resampled(images, others.pop(0), target), images[target], self.inplace)
        else:
            return F.gelu(images[target])  # the input map, which must not be overwritten
        for source in others:
            total = added(self._resampled(images, source, target), total, self.inplace)
        return gelu(total, self.inplace)

    def _sources(self, target: int) -> list[int]:
        """The input branches of an output branch, the one of equal size first."""
        sources = [int(source) for source in cast(nn.ModuleDict, self.paths[target])]
        return sorted(sources, key=lambda source: source != target)

    def _resampled(self, images: list[Tensor], source: int, target: int) -> Tensor:
        """The map of an input branch at the width and size of an output branch."""
        x_BCHW = cast(nn.ModuleDict, self.paths[target])[str(source)](images[source])
        return resized(x_BCHW, images[target], self.upsample) if source > target else x_BCHW


def paths_fusion(
    sources: Callable[[int, int, bool], Sources],
    dims_in: Sequence[int],
    dims_out: Sequence[int],
    upsample: str,
    last: bool,
) -> Fusion:
    """The fusion with the paths given by ``sources(branches_in, branches_out, last)``."""
    return Fusion(dims_in, dims_out, sources(len(dims_in), len(dims_out), last), upsample)


def resized(x_BCHW: Tensor, like_BCHW: Tensor, upsample: str) -> Tensor:
    """Interpolate a map to the height and width of another, ``"nearest"`` or ``"bilinear"``."""
    corners = None if upsample == "nearest" else False
    return F.interpolate(x_BCHW, size=like_BCHW.shape[-2:], mode=upsample, align_corners=corners)


def _path(source: int, target: int, c_in: int, c_out: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    return downward_path(c_in, c_out, target - source) if source < target else upward_path(c_in, c_out)
