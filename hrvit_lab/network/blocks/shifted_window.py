"""Attention within windows shifted by half a window, which connects tokens of neighbouring unshifted windows.

Source: arXiv 2103.14030, section 3.2 (Swin).
"""

from hrvit_lab.network.blocks.window import WindowAttention


def shifted_window_attention(dim: int, head_dim: int, window_size: int) -> WindowAttention:
    """Attention within windows whose first ones are ``window_size // 2`` tokens wide and high.

    Swin rolls the map and masks pairs of tokens that are not adjacent. Here, the windows at the border have their own
    size instead, which gives the same result without roll and mask. The exception are maps that are not divisible by
    the window: Swin pads them, this module does not.

    Args, shapes: as ``WindowAttention``.
    """
    return WindowAttention(dim, head_dim, window_size, shift=window_size // 2)
