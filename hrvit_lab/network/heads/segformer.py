"""SegFormer's decoder: branches are projected to one width, resized to the finest map, fused by a 1×1 convolution.

Source: arXiv 2105.15203, section 3.2.

A 1×1 convolution of resized maps is the sum of its parts for each map. Resizing can follow it, because both are linear
and a resized value is a weighted mean. So in inference, a map's projection and its part of the fusing convolution are
one product at the map's own size.
"""

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.served_conv import PointwiseConv
from hrvit_lab.network.heads.layers import ConvNormReLU, concatenate, pixel_classifier, sum_resized


class SegFormerHead(nn.Module):
    """Logits at the size of the finest map; the caller upsamples them to the image.

    Args:
        dims: channels of the branches, finest first.
        head_widths, pyramid: unused; all heads take the same arguments.
        width: channels that every branch is projected to.
        num_classes: outputs; 0 returns the features before the classifier, (B, width, H_0, W_0).
        drop_rate: dropout of whole channels before the classifier.

    Shape: (B, C_i, H_i, W_i) of every branch → (B, num_classes, H_0, W_0).
    """

    def __init__(
        self,
        dims: Sequence[int],
        head_widths: Sequence[int],
        width: int,
        num_classes: int,
        pyramid: bool,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(dim, width, 1) for dim in dims)
        self.fuse = ConvNormReLU(len(dims) * width, width, 1)
        self.drop = nn.Dropout2d(drop_rate)
        self.num_features = width
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """Replace the classifier by a new one with ``num_classes`` outputs, or by an identity for 0."""
        self.classifier = pixel_classifier(self.num_features, num_classes)

    def forward(self, *maps: Tensor, pre_logits: bool = False) -> Tensor:
        projected = (project(x_BCHW) for project, x_BCHW in zip(self.projections, maps, strict=True))
        y_BCHW = self.drop(self.fuse(concatenate(projected)))
        return y_BCHW if pre_logits else self.classifier(y_BCHW)

    def served(self) -> nn.Module:
        """The equivalent module for inference, once the norm is folded and the convolutions are linears."""
        return ServedSegFormerHead(self)


class ServedSegFormerHead(nn.Module):
    """SegFormer's decoder with one product for each map, at the map's own size.

    Shape: (B, C_i, H_i, W_i) of every branch → (B, num_classes, H_0, W_0).
    """

    def __init__(self, head: SegFormerHead) -> None:
        super().__init__()
        fuse = cast(PointwiseConv, head.fuse.conv).linear
        assert fuse.bias is not None, "the norm is folded"
        products, bias = [], fuse.bias.detach().double()
        for project, weight in zip(head.projections, fuse.weight.chunk(len(head.projections), dim=1), strict=True):
            inner = cast(PointwiseConv, project).linear
            merged = nn.Linear(inner.in_features, fuse.out_features, bias=False, device="meta")
            merged.weight = nn.Parameter((weight.double() @ inner.weight.double()).to(weight.dtype))
            products.append(merged)
            bias = bias + weight.double() @ inner.bias.double()
        products[0].bias = nn.Parameter(bias.to(fuse.bias.dtype))  # a constant is not changed by resizing
        self.products = nn.ModuleList(PointwiseConv(product) for product in products)
        self.num_features = head.num_features
        self.classifier = head.classifier

    def reset(self, num_classes: int) -> None:
        """Replace the classifier by a new one with ``num_classes`` outputs, or by an identity for 0."""
        self.classifier = pixel_classifier(self.num_features, num_classes)

    def forward(self, *maps: Tensor, pre_logits: bool = False) -> Tensor:
        parts = (product(x_BCHW) for product, x_BCHW in zip(self.products, maps, strict=True))
        y_BCHW = F.relu_(sum_resized(parts))
        return y_BCHW if pre_logits else self.classifier(y_BCHW)
