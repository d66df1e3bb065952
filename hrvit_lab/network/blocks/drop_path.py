"""Stochastic depth.

Source: Huang et al., "Deep Networks with Stochastic Depth", arXiv 1603.09382. The random numbers and the values are
those of ``timm.layers.DropPath`` (tested), which is not used here because ``import timm`` takes as long as
``import torch``.
"""

from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, set whole samples to 0 and divide the others by the probability of being kept; an identity in
    evaluation mode.

    Args:
        rate: probability that a sample becomes 0, in [0, 1).

    Shape: (B, …) → (B, …).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty((x.shape[0], *[1] * (x.ndim - 1))).bernoulli_(1 - self.rate)
        return x * kept.div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"
