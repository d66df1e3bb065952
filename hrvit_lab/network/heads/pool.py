"""Classifiers on the average of the coarsest map, as a sequential pyramid ends: MiT without, CSWin with a LayerNorm.

Source: arXiv 2105.15203, section 3.1; arXiv 2107.00652, section 3.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from hrvit_lab.network.blocks.tokens import to_tokens


class PoolHead(nn.Module):
    """Mean over the tokens of the coarsest map, dropout, linear.

    Of parallel branches the last stage's finer ones go unread: they cost, and learn nothing.

    Args:
        dims: channels of the branches, finest first.
        head_widths, features: not read; every head takes the same arguments.
        num_classes: outputs; 0 returns the pooled features, (B, C).
        drop_rate: dropout before the classifier.
        norm: a LayerNorm before the mean.

    Shape: list of (B, C_i, H_i, W_i) → (B, num_classes).
    """

    def __init__(
        self,
        dims: Sequence[int],
        head_widths: Sequence[int],
        features: int,
        num_classes: int,
        drop_rate: float = 0.0,
        *,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_features = dims[-1]
        self.norm = nn.LayerNorm(self.num_features) if norm else nn.Identity()
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """Put a fresh linear to ``num_classes`` in place; 0 for none."""
        self.classifier = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, maps: list[Tensor], pre_logits: bool = False) -> Tensor:
        y_BC = self.drop(self.norm(to_tokens(maps[-1])).mean(dim=(1, 2)))
        return y_BC if pre_logits else self.classifier(y_BC)
