"""SegFormer's decoder: branches are projected to one width, resized to the finest map, fused by a 1×1 convolution.

Source: arXiv 2105.15203, section 3.2.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from hrvit_lab.network.heads.layers import ConvNormReLU, concatenate, pixel_classifier


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
