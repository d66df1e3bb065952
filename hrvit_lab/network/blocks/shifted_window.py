"""Attention within windows shifted by half a window, which connects tokens of neighbouring unshifted windows.

Source: arXiv 2103.14030, section 3.2 (Swin).
"""

from hrvit_lab.network.blocks.window import WindowAttention


def shifted_window_attention(dim: int, head_dim: int, window_size: int) -> WindowAttention:
    """Attention within windows, of which the first on each axis has ``window_size // 2`` tokens.

    Swin rolls the map and masks pairs of tokens that are not adjacent. Here, the windows at the border have their own
    size instead, which gives the same result without roll and mask. Results differ for maps that are not divisible by
    the window, because Swin pads them.

    Args, shapes: as ``WindowAttention``.
    """
    return WindowAttention(dim, head_dim, window_size, shift=window_size // 2)
