"""Costs of the variants without attention: depthwise convolution and identity."""

from hrvit_lab.parts.ops import Costs, convolution, linear

KERNEL = 7


def depthwise_conv_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """Values from one linear, then a depthwise convolution."""
    pixels = height * width
    return (
        linear("attention projection", dim, dim, pixels),
        convolution("attention convolution", dim, dim, KERNEL, pixels, groups=dim),
    )


def depthwise_conv_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Values and output."""
    return 2 * dim * height * width


def identity_cost(dim: int, head_dim: int, window_size: int, height: int, width: int) -> Costs:
    """Values from one linear."""
    return (linear("attention projection", dim, dim, height * width),)


def identity_live(dim: int, head_dim: int, window_size: int, height: int, width: int, batch_size: int) -> int:
    """Values."""
    return dim * height * width
