"""Depthwise convolution with a fast weight gradient on CPUs for kernels wider than 3 columns.

In torch 2.15 (oneDNN 3.13), the weight gradient of a wider kernel takes up to 12 times as long as that of a kernel with
3 columns and any number of rows (60 times in bfloat16). So it is computed for 3 columns of the kernel at a time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

QUICK_COLUMNS = 3
"""Maximum width of a kernel with a fast weight gradient."""


def wide_depthwise(x_BCHW: Tensor, weight_C1kk: Tensor, bias_C: Tensor | None) -> Tensor:
    """A depthwise convolution that keeps the map's size (odd k): (B, C, H, W) → (B, C, H, W)."""
    trained = torch.is_grad_enabled() and weight_C1kk.requires_grad
    plain = torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting() or torch.jit.is_tracing()
    if trained and not plain and x_BCHW.device.type == "cpu":
        return _WideDepthwise.apply(x_BCHW, weight_C1kk, bias_C)
    return _convolve(x_BCHW, weight_C1kk, bias_C)


def _convolve(x_BCHW: Tensor, weight_C1kk: Tensor, bias_C: Tensor | None) -> Tensor:
    return F.conv2d(x_BCHW, weight_C1kk, bias_C, padding=weight_C1kk.shape[-1] // 2, groups=weight_C1kk.shape[0])


class _WideDepthwise(torch.autograd.Function):
    """``_convolve`` with a custom backward pass."""

    @staticmethod
    def forward(x_BCHW: Tensor, weight_C1kk: Tensor, bias_C: Tensor | None) -> Tensor:
        return _convolve(x_BCHW, weight_C1kk, bias_C)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, weight_C1kk = ctx.saved_tensors
        grad_BCHW = gradients[0].contiguous(memory_format=torch.channels_last)
        C, k = weight_C1kk.shape[0], weight_C1kk.shape[-1]
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            conv2d_input(x_BCHW.shape, weight_C1kk, grad_BCHW, padding=k // 2, groups=C) if of_x else None,
            _weight_gradient(x_BCHW, grad_BCHW, k) if of_weight else None,
            grad_BCHW.sum(dim=(0, 2, 3)) if of_bias else None,
        )


def _weight_gradient(x_BCHW: Tensor, grad_BCHW: Tensor, k: int) -> Tensor:
    """The weight gradient, (C, 1, k, k), computed for 3 columns at a time from a shifted input."""
    C, margin = x_BCHW.shape[1], k // 2
    parts = []
    for left in range(0, k, QUICK_COLUMNS):
        right = min(left + QUICK_COLUMNS, k)
        seen_BCHw = F.pad(x_BCHW, (margin - left, right - 1 - margin))  # negative padding crops
        parts.append(conv2d_weight(seen_BCHw, (C, 1, k, right - left), grad_BCHW, padding=(margin, 0), groups=C))
    return torch.cat(parts, dim=-1)
