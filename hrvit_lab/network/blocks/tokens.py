"""The token layout: maps have shape (B, H, W, C). Norms and linears use it directly, and convolutions use a permuted
view, which is a channels-last image. Neither copies."""

import torch
from torch import Tensor, nn

from hrvit_lab.network.blocks.depthwise_gradient import fast_gradient


def to_image(x_BHWC: Tensor) -> Tensor:
    """(B, H, W, C) → (B, C, H, W), a channels-last view."""
    return x_BHWC.permute(0, 3, 1, 2)


def to_tokens(x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W) → (B, H, W, C), a view."""
    return x_BCHW.permute(0, 2, 3, 1)


def conv_tokens(conv: nn.Module, x_BHWC: Tensor) -> Tensor:
    """Apply a convolution to tokens: (B, H, W, C_in) → (B, H', W', C_out)."""
    return to_tokens(conv(to_image(x_BHWC)))


def depthwise(dim: int, kernel_size: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A depthwise convolution (odd ``kernel_size``): (B, C, H, W) → (B, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
    padding = kernel_size // 2
    return fast_gradient(nn.Conv2d(dim, dim, kernel_size, stride=stride, padding=padding, groups=dim, bias=bias))


def batch_norm_tokens(norm: nn.Module, x_BHWC: Tensor) -> Tensor:
    """BatchNorm over batch and tokens: (B, H, W, C) → (B, H, W, C)."""
    if isinstance(norm, nn.Identity):
        return x_BHWC
    return norm(x_BHWC.reshape(-1, x_BHWC.shape[-1])).view(x_BHWC.shape)


def channels_last(x_BCHW: Tensor) -> Tensor:
    """The same image with channels last in memory."""
    return x_BCHW.contiguous(memory_format=torch.channels_last)
