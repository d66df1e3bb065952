"""Depthwise convolution with a faster weight gradient on a CPU.

The weight gradient of torch 2.15 with oneDNN 3.13 is slow in two cases:

- At stride 1, a kernel with more than 3 columns takes up to 12 times as long as one with 3 columns (60 times in
  bfloat16), for any number of rows. Here, the gradient is computed for 3 columns at a time.
- A map with fewer rows than the kernel takes 10 to 40 times as long as the same map with explicit rows of zeros around
  it. Here, these rows are added before the gradient is computed.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

FAST_COLUMNS = 3
"""Largest number of columns of a kernel whose weight gradient is fast at stride 1."""


def fast_gradient(conv: nn.Conv2d) -> nn.Conv2d:
    """Give a convolution the faster weight gradient, and return it.

    The module is still an ``nn.Conv2d``, also for hooks and counters. Its stride, padding and dilation may be changed
    later.

    Args:
        conv: depthwise, with a square kernel of odd size; changed in place.
    """
    conv.__dict__["_conv_forward"] = partial(_conv_forward, conv)
    return conv


def _conv_forward(conv: nn.Conv2d, x_BCHW: Tensor, weight_C1kk: Tensor, bias_C: Tensor | None) -> Tensor:
    """Replacement of ``nn.Conv2d._conv_forward``: (B, C, H, W) → (B, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
    trained = torch.is_grad_enabled() and weight_C1kk.requires_grad
    plain = torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting() or torch.jit.is_tracing()
    if trained and not plain and x_BCHW.device.type == "cpu" and _is_slow(conv, x_BCHW):
        return _FastGradient.apply(x_BCHW, weight_C1kk, bias_C, conv.stride[0])
    return nn.Conv2d._conv_forward(conv, x_BCHW, weight_C1kk, bias_C)


def _is_slow(conv: nn.Conv2d, x_BCHW: Tensor) -> bool:
    """Whether the library's gradient is slow and ours applies: padding k // 2, no dilation, equal strides."""
    k, stride = conv.kernel_size[0], conv.stride[0]
    usual = conv.padding == (k // 2, k // 2) and conv.dilation == (1, 1) and conv.stride == (stride, stride)
    return usual and x_BCHW.ndim == 4 and ((stride == 1 and k > FAST_COLUMNS) or x_BCHW.shape[2] < k)


class _FastGradient(torch.autograd.Function):
    """A depthwise convolution with padding k // 2 and the faster weight gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_BCHW: Tensor, weight_C1kk: Tensor, bias_C: Tensor | None, stride: int) -> Tensor:
        C, _, _, k = weight_C1kk.shape
        return F.conv2d(x_BCHW, weight_C1kk, bias_C, stride=stride, padding=k // 2, groups=C)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.stride = inputs[3]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, weight_C1kk = ctx.saved_tensors
        (grad_BChw,) = gradients
        C, _, _, k = weight_C1kk.shape
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        same = {"stride": ctx.stride, "padding": k // 2, "groups": C}
        return (
            conv2d_input(x_BCHW.shape, weight_C1kk, grad_BChw, **same) if of_x else None,
            _weight_gradient(x_BCHW, grad_BChw, k, ctx.stride) if of_weight else None,
            grad_BChw.sum(dim=(0, 2, 3)) if of_bias else None,
            None,
        )


def _weight_gradient(x_BCHW: Tensor, grad_BChw: Tensor, k: int, stride: int) -> Tensor:
    """The weight gradient, (C, 1, k, k), computed for some columns of the kernel at a time.

    These columns read a part of the padded input, so their gradient is that of a narrower kernel on this part.

    Args:
        x_BCHW: input of the convolution.
        grad_BChw: gradient of its output.
        k: side of the kernel.
        stride: of the convolution.
    """
    C, H, W = x_BCHW.shape[1:]
    margin = k // 2
    rows = margin if k > H else 0
    columns = FAST_COLUMNS if stride == 1 else k
    padded_BChw = F.pad(x_BCHW, (margin, margin, rows, rows))
    parts = []
    for left in range(0, k, columns):
        right = min(left + columns, k)
        read_BChw = padded_BChw[..., left : W + right - 1]
        shape = (C, 1, k, right - left)
        parts.append(conv2d_weight(read_BChw, shape, grad_BChw, stride, padding=(margin - rows, 0), groups=C))
    return torch.cat(parts, dim=-1)
