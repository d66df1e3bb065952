"""UperNet: a feature pyramid network with pyramid pooling on the coarsest map, and an auxiliary head for training.

Source: arXiv 1807.10221, section 3.1; pyramid pooling after arXiv 1612.01105; sizes as mmsegmentation's.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.fusion import resized
from hrvit_lab.network.blocks.inplace import added
from hrvit_lab.network.heads.layers import ConvNormReLU, concatenate, pixel_classifier
from hrvit_lab.parts.head import AUXILIARY_WIDTH, POOL_SIZES, auxiliary_branch


class PyramidPooling(nn.Module):
    """A map concatenated with its averages over 1×1, 2×2, 3×3 and 6×6 bins, fused by a 3×3 convolution.

    Shape: (B, dim, H, W) → (B, width, H, W).
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(ConvNormReLU(dim, width, 1) for _ in POOL_SIZES)
        self.fuse = ConvNormReLU(dim + len(POOL_SIZES) * width, width, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        pooled = [
            project(F.adaptive_avg_pool2d(x_BCHW, bins))
            for project, bins in zip(self.projections, POOL_SIZES, strict=True)
        ]
        return self.fuse(concatenate([x_BCHW, *pooled]))


class FCNHead(nn.Module):
    """Logits for every position of one map: a 3×3 convolution and a classifier.

    Shape: (B, dim, H, W) → (B, num_classes, H, W); for ``num_classes`` 0 the features before the classifier.
    """

    def __init__(self, dim: int, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.conv = ConvNormReLU(dim, AUXILIARY_WIDTH, 3)
        self.drop = nn.Dropout2d(drop_rate)
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """Replace the classifier by a new one with ``num_classes`` outputs, or by an identity for 0."""
        self.classifier = pixel_classifier(AUXILIARY_WIDTH, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.classifier(self.drop(self.conv(x_BCHW)))


class UperNetHead(nn.Module):
    """Logits at the size of the finest map; the caller upsamples them to the image.

    In training mode it returns ``(logits, auxiliary logits)``; the published weight of the auxiliary loss is 0.4. In
    evaluation mode the auxiliary head does not run: its parameters count, its multiply-accumulates do not. A training
    batch must have at least two images, because the average over the whole map gives BatchNorm one value per image.

    Args:
        dims: channels of the branches, finest first.
        head_widths, pyramid: unused; all heads take the same arguments.
        width: channels of the pyramid.
        num_classes: outputs; 0 returns the features before the classifier, (B, width, H_0, W_0).
        drop_rate: dropout of whole channels before the classifiers.

    Shape: (B, C_i, H_i, W_i) of every branch → (B, num_classes, H_0, W_0); in training also the auxiliary logits (B,
    num_classes, H_a, W_a) of branch a = 2, or of the coarsest if there are fewer.
    """

    inplace = False

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
        self.laterals = nn.ModuleList(ConvNormReLU(dim, width, 1) for dim in dims[:-1])
        self.outputs = nn.ModuleList(ConvNormReLU(width, width, 3) for _ in dims[:-1])
        self.top = PyramidPooling(dims[-1], width)
        self.fuse = ConvNormReLU(len(dims) * width, width, 3)
        self.drop = nn.Dropout2d(drop_rate)
        self.auxiliary_branch = auxiliary_branch(len(dims))
        self.auxiliary = FCNHead(dims[self.auxiliary_branch], num_classes, drop_rate)
        self.num_features = width
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """Replace the classifier and the auxiliary one by new ones with ``num_classes`` outputs, or by identities for
        0."""
        self.classifier = pixel_classifier(self.num_features, num_classes)
        self.auxiliary.reset(num_classes)

    def pyramid(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) → (B, width, H_i, W_i): from coarse to fine, every level adds the next coarser
        one."""
        above_BCHW = self.top(maps[-1])
        levels = [above_BCHW]
        for lateral, output, x_BCHW in zip(self.laterals[::-1], self.outputs[::-1], maps[-2::-1], strict=True):
            above_BCHW = added(resized(above_BCHW, x_BCHW, "bilinear"), lateral(x_BCHW), self.inplace)
            levels.append(output(above_BCHW))
        return levels[::-1]

    def forward(self, *maps: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        y_BCHW = self.drop(self.fuse(concatenate(self.pyramid(maps))))
        if pre_logits:
            return y_BCHW
        logits = self.classifier(y_BCHW)
        return (logits, self.auxiliary(maps[self.auxiliary_branch])) if self.training else logits
