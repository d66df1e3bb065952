"""No token mixing, as a baseline for attention.

Source: ours.
"""

from torch import Tensor, nn


class Unmixed(nn.Module):
    """Values from one linear, without mixing.

    Args:
        dim: channels.
        head_dim, window_size: unused.

    Shape: (B, H, W, C) → values twice, one tensor (B, H, W, C).
    """

    def __init__(self, dim: int, head_dim: int, window_size: int) -> None:
        super().__init__()
        self.to_v = nn.Linear(dim, dim)

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        v_BHWC = self.to_v(x_BHWC)
        return v_BHWC, v_BHWC
