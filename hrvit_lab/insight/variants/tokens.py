"""Attention to all tokens: global, to merged tokens, or linear."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from hrvit_lab.insight.heads import Group, Heads
from hrvit_lab.insight.variants.split import numbered, split_heads


def global_attention(mixer: nn.Module, outputs: Mapping[str, Tensor]) -> Heads:
    """Every token attends to all tokens."""
    qkv_HWC = outputs["to_qkv"]
    size = qkv_HWC.shape[0], qkv_HWC.shape[1]
    q_hnd, k_hnd, v_hnd = (split_heads(x_HWC, cast(int, mixer.num_heads)) for x_HWC in qkv_HWC.chunk(3, dim=-1))
    tokens = numbered(size, qkv_HWC.device).view(1, -1)
    return Heads(q_hnd, k_hnd, v_hnd, size, (Group(slice(None), tokens, tokens),), size)


def spatial_reduction(mixer: nn.Module, outputs: Mapping[str, Tensor]) -> Heads:
    """Every token attends to merged patches. Rows and columns that fill no patch have no key."""
    q_HWC, kv_hwC = outputs["to_q"], outputs["to_kv"]
    side, number = cast(int, mixer.window_size), cast(int, mixer.num_heads)
    size, merged = (q_HWC.shape[0], q_HWC.shape[1]), (kv_hwC.shape[0], kv_hwC.shape[1])
    k_hmd, v_hmd = (split_heads(x_hwC, number) for x_hwC in kv_hwC.chunk(2, dim=-1))
    group = Group(slice(None), numbered(size, q_HWC.device).view(1, -1), numbered(merged, q_HWC.device).view(1, -1))
    return Heads(split_heads(q_HWC, number), k_hmd, v_hmd, size, (group,), merged, cell=(side, side))


def linear(mixer: nn.Module, outputs: Mapping[str, Tensor]) -> Heads:
    """The implicit map of linear attention: softmax(q) over channels times softmax(k) over tokens.

    Its rows sum to 1, because both factors are normalised.
    """
    heads = global_attention(mixer, outputs)
    return heads._replace(q_hnd=heads.q_hnd.softmax(dim=-1), k_hmd=heads.k_hmd.softmax(dim=-2), softmax=False)
