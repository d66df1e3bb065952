"""Attention within windows shifted by half a window, so that tokens meet across the borders of unshifted ones.

Source: arXiv 2103.14030, section 3.2 (Swin).
"""

from hrvit_lab.network.blocks.window import WindowAttention


def shifted_window_attention(dim: int, head_dim: int, window_size: int) -> WindowAttention:
    """Attention within windows whose first ones are ``window_size // 2`` tokens wide and high.

    Swin rolls the map around and masks tokens that only meet because of that. Here the border's windows run at their
    own size instead, which gives the same without roll and mask; except that Swin pads a map that the window does not
    divide, and here nothing is padded.

    Args, shapes: as ``WindowAttention``.
    """
    return WindowAttention(dim, head_dim, window_size, shift=window_size // 2)
