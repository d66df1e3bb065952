"""Classification head: a bottleneck on every branch, summed from fine to coarse, pooled.

Source: arXiv 1908.07919 (HRNet), section 3, for any number of branches.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.network.blocks.inplace import added
from hrvit_lab.network.blocks.recompute import adapt_momentum, run
from hrvit_lab.parts.head import EXPANSION


class Bottleneck(nn.Module):
    """1×1 → 3×3 → 1×1 convolutions with BatchNorm, a projection shortcut, ReLU.

    Shape: (B, c_in, H, W) → (B, 4 · inner, H, W).
    """

    batch_norms = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
    inplace = False

    def __init__(self, c_in: int, inner: int) -> None:
        super().__init__()
        out = EXPANSION * inner
        self.conv1 = nn.Conv2d(c_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential(nn.Conv2d(c_in, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)), self.inplace)
        y_BCHW = F.relu(self.bn2(self.conv2(y_BCHW)), self.inplace)
        return F.relu(added(self.bn3(self.conv3(y_BCHW)), self.shortcut(x_BCHW), self.inplace), self.inplace)


class ClassifierHead(nn.Module):
    """Image classification from the maps of all branches.

    Args:
        dims: channels of the branches, finest first.
        head_widths: inner widths of their bottlenecks.
        head_features: channels after the last 1×1 convolution.
        num_classes: outputs; 0 returns the pooled features.
        pyramid: unused; all heads take the same arguments.
        drop_rate: dropout before the classifier.

    Shape: (B, C_i, H_i, W_i) of every branch → (B, num_classes).
    """

    inplace = False

    def __init__(
        self,
        dims: Sequence[int],
        head_widths: Sequence[int],
        head_features: int,
        num_classes: int,
        pyramid: bool,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        outs = [EXPANSION * inner for inner in head_widths]
        self.bottlenecks = nn.ModuleList(Bottleneck(c, inner) for c, inner in zip(dims, head_widths, strict=True))
        self.downsamples = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b)) for a, b in pairwise(outs)
        )
        self.features = nn.Sequential(nn.Conv2d(outs[-1], head_features, 1), nn.BatchNorm2d(head_features))
        self.drop = nn.Dropout(drop_rate)
        self.num_features = head_features
        self.grad_checkpointing = False
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """Replace the classifier by a new linear with ``num_classes`` outputs, or by an identity for 0."""
        self.classifier = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def set_grad_checkpointing(self, enable: bool) -> None:
        """Recompute the bottlenecks in the backward pass."""
        if enable != self.grad_checkpointing:
            self.grad_checkpointing = enable
            adapt_momentum(self.bottlenecks, recompute=enable)

    def forward(self, *maps: Tensor, pre_logits: bool = False) -> Tensor:
        y_BCHW = run(self.bottlenecks[0], maps[0], recompute=self.grad_checkpointing)
        for downsample, bottleneck, x_BCHW in zip(self.downsamples, self.bottlenecks[1:], maps[1:], strict=True):
            finer = F.relu(downsample(y_BCHW), self.inplace)
            y_BCHW = added(run(bottleneck, x_BCHW, recompute=self.grad_checkpointing), finer, self.inplace)
        y_BC = self.drop(F.relu(self.features(y_BCHW), self.inplace).mean(dim=(2, 3)))
        return y_BC if pre_logits else self.classifier(y_BC)
