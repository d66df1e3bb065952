"""Attention of tokens within one window: one computation, a fused path and an explicit one.

The fused path is PyTorch's ``scaled_dot_product_attention``. The explicit path writes out both products, for
attention maps and for counters that cannot see into the fused kernel.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

# B windows, n tokens in a window, h heads, d channels per head


def attend(q_Bnc: Tensor, k_Bnc: Tensor, v_Bnc: Tensor, num_heads: int, *, fused: bool = True) -> Tensor:
    """Multi-head attention among the n tokens of every window; heads are contiguous channels.

    Args:
        q_Bnc, k_Bnc, v_Bnc: (B, n, C).
        num_heads: divides C; the scale is (C / num_heads)^-0.5.
        fused: use the fused kernel.
    Returns:
        (B, n, C).
    """
    B, n, C = q_Bnc.shape
    heads = (num_heads, C // num_heads)
    q_Bhnd = q_Bnc.view(B, n, *heads).transpose(1, 2)
    v_Bhnd = v_Bnc.view(B, -1, *heads).transpose(1, 2)
    k_Bhnd = v_Bhnd if k_Bnc is v_Bnc else k_Bnc.view(B, -1, *heads).transpose(1, 2)
    if fused:
        out_Bhnd = F.scaled_dot_product_attention(q_Bhnd, k_Bhnd, v_Bhnd)
    else:
        out_Bhnd = attention_map(q_Bhnd, k_Bhnd) @ v_Bhnd
    return out_Bhnd.transpose(1, 2).flatten(2)


def attention_map(q_Bhnd: Tensor, k_Bhnd: Tensor) -> Tensor:
    """Attention weights, rows summing to 1: (B, h, n, d) twice → (B, h, n, n)."""
    scale = q_Bhnd.shape[-1] ** -0.5
    return (q_Bhnd * scale @ k_Bhnd.transpose(-2, -1)).softmax(dim=-1)


@contextmanager
def use_explicit_attention(model: nn.Module) -> Iterator[None]:
    """Within the context every attention in ``model`` takes its explicit path (ours and timm's: ``fused_attn``)."""
    fused = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]
