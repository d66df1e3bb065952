"""Classifiers on averaged maps, as in sequential pyramids: MiT without LayerNorm, CSWin with LayerNorm.

Source: arXiv 2105.15203, section 3.1; arXiv 2107.00652, section 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.tokens import to_tokens
from hrvit_lab.parts.head import averaged


class PoolHead(nn.Module):
    """Means over the tokens of the maps, concatenated; dropout; linear.

    For a pyramid, it reads only the coarsest map, which is computed from the others. For parallel branches, it reads
    all maps; otherwise the finer branches of the last stage would have no gradient.

    Args:
        dims: channels of the branches, finest first.
        head_widths, features: unused; all heads take the same arguments.
        num_classes: outputs; 0 returns the pooled features, (B, C) or (B, Σ C_i).
        pyramid: whether every map is computed from the next finer one.
        drop_rate: dropout before the classifier.
        norm: a LayerNorm before each mean.

    Shape: (B, C_i, H_i, W_i) of every branch → (B, num_classes).
    """

    def __init__(
        self,
        dims: Sequence[int],
        head_widths: Sequence[int],
        features: int,
        num_classes: int,
        pyramid: bool,
        drop_rate: float = 0.0,
        *,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dims[i]) if norm else nn.Identity() for i in averaged(dims, pyramid))
        self.num_features = sum(dims[i] for i in averaged(dims, pyramid))
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """Replace the classifier by a new linear with ``num_classes`` outputs, or by an identity for 0."""
        self.classifier = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, *maps: Tensor, pre_logits: bool = False) -> Tensor:
        read = zip(self.norms, maps[-len(self.norms) :], strict=True)
        y_BC = self.drop(torch.cat([norm(to_tokens(x_BCHW)).mean(dim=(1, 2)) for norm, x_BCHW in read], dim=-1))
        return y_BC if pre_logits else self.classifier(y_BC)
