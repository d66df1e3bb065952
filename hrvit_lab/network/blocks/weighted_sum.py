"""Fast normalized fusion: every output branch is a weighted mean of all input branches, followed by GELU.

Source: arXiv 1911.09070 (EfficientDet's BiFPN), section 3.3.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.fusion import resized
from hrvit_lab.network.blocks.inplace import gelu
from hrvit_lab.network.blocks.tokens import to_image, to_tokens

EPSILON = 1e-4
"""Keeps the mean finite if all weights are clamped to zero."""


class WeightedSum(nn.Module):
    """A weighted mean of all input branches at the width and size of the output branch, with weights of at least zero.

    A 1×1 convolution changes the width if it differs; block averages or interpolation change the size. Both are linear,
    and resampling weights sum to 1, so their order does not matter: the convolution runs on the smaller map.

    Args:
        dims_in: channels of the input branches, finest first.
        dims_out: channels of the output branches, at least as many.
        upsample: interpolation from a coarser branch, ``"nearest"`` or ``"bilinear"``.

    Shape: (B, H_j, W_j, dims_in[j]) of every input branch → tuple of (B, H_i, W_i, dims_out[i]).
    """

    inplace = False

    def __init__(self, dims_in: Sequence[int], dims_out: Sequence[int], upsample: str) -> None:
        super().__init__()
        self.upsample = upsample
        self.convs = nn.ModuleList(
            nn.ModuleList(nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1) for c_in in dims_in)
            for c_out in dims_out
        )
        # The mean of a single map needs no weight.
        several = len(dims_in) > 1
        self.weights = nn.ParameterList(torch.ones(len(dims_in)) for _ in dims_out) if several else None

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        images = [to_image(x_BHWC) for x_BHWC in maps]
        return tuple(to_tokens(self._fused(images, target)) for target in range(len(self.convs)))

    def _fused(self, images: list[Tensor], target: int) -> Tensor:
        if self.weights is None:
            return F.gelu(self._resampled(images, 0, target))  # may be the input map, which must not be overwritten
        weights = self.weights[target].relu()
        shares = (weights / (weights.sum() + EPSILON)).unbind()
        total = self._resampled(images, 0, target) * shares[0]
        for source in range(1, len(images)):
            x_BCHW, share = self._resampled(images, source, target), shares[source]
            total = total.addcmul_(x_BCHW, share) if self.inplace else total.addcmul(x_BCHW, share)
            del x_BCHW
        return gelu(total, self.inplace)

    def _resampled(self, images: list[Tensor], source: int, target: int) -> Tensor:
        """The map of an input branch at the width and size of an output branch."""
        conv = cast(nn.ModuleList, self.convs[target])[source]
        if source < target:
            block = 2 ** (target - source)
            return conv(F.avg_pool2d(images[source], block, ceil_mode=True))
        if source > target:
            return resized(conv(images[source]), images[target], self.upsample)
        return conv(images[source])


def weighted_sum(dims_in: Sequence[int], dims_out: Sequence[int], upsample: str, last: bool) -> WeightedSum:
    """The entry of the ``FUSION`` table; ``last`` is unused."""
    return WeightedSum(dims_in, dims_out, upsample)
