"""Multi-head attention within windows, with a fused and an explicit path.

The fused path is PyTorch's ``scaled_dot_product_attention``. The explicit path computes both products separately, for
attention maps and for counters that do not support the fused kernel.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# B windows, n tokens in a window, m tokens that they attend to (n, unless keys were merged), h heads, d channels per
# head


def attend(
    q_Bnc: Tensor,
    k_Bmc: Tensor,
    v_Bmc: Tensor,
    num_heads: int,
    *,
    bias_hnm: Tensor | None = None,
    fused: bool = True,
) -> Tensor:
    """Multi-head attention of the n tokens of every window to m tokens; heads are contiguous channels.

    Args:
        q_Bnc: (B, n, C).
        k_Bmc, v_Bmc: (B, m, C).
        num_heads: divides C; the scale is (C / num_heads)^-0.5.
        bias_hnm: added to the scores of every window, (h, n, m), of the same dtype as the inputs.
        fused: use the fused kernel, unless it is slower than two explicit products.
    Returns:
        (B, n, C).
    """
    heads = (num_heads, q_Bnc.shape[-1] // num_heads)
    q_Bhnd = q_Bnc.unflatten(-1, heads).transpose(1, 2)
    v_Bhmd = v_Bmc.unflatten(-1, heads).transpose(1, 2)
    k_Bhmd = v_Bhmd if k_Bmc is v_Bmc else k_Bmc.unflatten(-1, heads).transpose(1, 2)
    return attend_by_head(q_Bhnd, k_Bhmd, v_Bhmd, bias_hnm=bias_hnm, fused=fused).transpose(1, 2).flatten(2)


def attend_by_head(
    q_Bhnd: Tensor, k_Bhmd: Tensor, v_Bhmd: Tensor, *, bias_hnm: Tensor | None = None, fused: bool = True
) -> Tensor:
    """``attend`` for inputs that are already split into heads: (B, h, n, d) and (B, h, m, d) → (B, h, n, d)."""
    if fused and not _slow_backward(q_Bhnd):
        bias_1hnm = None if bias_hnm is None else bias_hnm[None]  # the CPU kernel needs all four dimensions
        return F.scaled_dot_product_attention(q_Bhnd, k_Bhmd, v_Bhmd, bias_1hnm)
    return attention_map(q_Bhnd, k_Bhmd, bias_hnm) @ v_Bhmd


FEWEST_TOKENS, MOST_SCORES = 16, 400_000
MOST_TOKENS = {torch.float32: 60, torch.bfloat16: 98}
"""Windows whose two products in float32 are faster on a CPU than the fused kernel in this number format
(``tests/bench_attention.py``); more scores leave the cache."""


def attend_served(q_Bhnd: Tensor, v_Bhmd: Tensor, *, fused: bool = True) -> Tensor:
    """``attend_by_head`` for inference, where keys are the values: small windows by two products if that is faster."""
    B, h, n, d = q_Bhnd.shape
    in_cache = not isinstance(B, int) or B * h * n * n <= MOST_SCORES  # with a free batch, B is a symbol
    small = FEWEST_TOKENS <= n <= MOST_TOKENS.get(q_Bhnd.dtype, 0) and in_cache
    if not (fused and small and q_Bhnd.device.type == "cpu"):
        return attend_by_head(q_Bhnd, v_Bhmd, v_Bhmd, fused=fused)
    q_Bnd, v_Bmd = q_Bhnd.reshape(B * h, n, d).float(), v_Bhmd.reshape(B * h, n, d).float()
    nothing = q_Bnd.new_empty(1)  # multiplied by beta, and not read
    scores_Bnm = torch.baddbmm(nothing, q_Bnd, v_Bmd.transpose(1, 2), beta=0, alpha=d**-0.5)
    return torch.bmm(scores_Bnm.softmax(dim=-1), v_Bmd).to(q_Bhnd.dtype).view(B, h, n, d)


def _slow_backward(q: Tensor) -> bool:
    """Whether the fused kernel's backward pass is slow: in bfloat16 on the CPU it takes seven times as long as in
    float32 (torch 2.15). A traced graph must not depend on the gradient mode."""
    return q.dtype == torch.bfloat16 and q.device.type == "cpu" and q.requires_grad and not torch.jit.is_tracing()


def attention_map(q_Bhnd: Tensor, k_Bhmd: Tensor, bias_hnm: Tensor | None = None) -> Tensor:
    """Attention weights, rows summing to 1: (B, h, n, d) and (B, h, m, d) → (B, h, n, m)."""
    scale = q_Bhnd.shape[-1] ** -0.5
    scores_Bhnm = q_Bhnd * scale @ k_Bhmd.transpose(-2, -1)
    if bias_hnm is not None:
        scores_Bhnm = scores_Bhnm + bias_hnm
    return scores_Bhnm.softmax(dim=-1)


@contextmanager
def use_explicit_attention(model: nn.Module) -> Iterator[None]:
    """Context in which every attention in ``model`` uses its explicit path (modules with ``fused_attn``: ours,
    timm's)."""
    fused = [module for module in model.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]
