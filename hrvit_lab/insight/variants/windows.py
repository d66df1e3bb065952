"""Attention within windows: plain, shifted and dilated."""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from hrvit_lab.insight.heads import Group, Heads
from hrvit_lab.insight.variants.split import numbered, split_heads
from hrvit_lab.network.blocks.window import relative_bias, windows
from hrvit_lab.parts.attention.windows import spans


def window(mixer: nn.Module, outputs: Mapping[str, Tensor]) -> Heads:
    """Windows with a bias for every relative position; also shifted windows, whose mixer has a shift."""
    side, shift = cast(int, mixer.window_size), cast(int, mixer.shift)
    table_hyx = cast(Tensor, mixer.relative_bias).detach()

    def divided(tokens_HW: Tensor) -> list[Group]:
        H, W = tokens_HW.shape
        return [
            _group(
                windows(tokens_HW[None, :, :, None], row, column)[..., 0],
                relative_bias(table_hyx, row.size, column.size),
            )
            for row in spans(H, side, shift)
            for column in spans(W, side, shift)
        ]

    return _heads(mixer, outputs, divided)


def dilated_window(mixer: nn.Module, outputs: Mapping[str, Tensor]) -> Heads:
    """Windows of tokens whose rows and columns are congruent modulo the dilation."""
    side = cast(int, mixer.window_size)

    def divided(tokens_HW: Tensor) -> list[Group]:
        down, right = (-(-length // side) for length in tokens_HW.shape)
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for y in range(down):
            for x in range(right):
                part = tokens_HW[y::down, x::right]
                by_shape.setdefault(part.shape, []).append(part.flatten())
        return [_group(torch.stack(parts)) for parts in by_shape.values()]

    return _heads(mixer, outputs, divided)


def _group(tokens_Nn: Tensor, bias_hnn: Tensor | None = None) -> Group:
    return Group(slice(None), tokens_Nn, tokens_Nn, bias_hnn)


def _heads(mixer: nn.Module, outputs: Mapping[str, Tensor], divided: Callable[[Tensor], list[Group]]) -> Heads:
    qkv_HWC = outputs["to_qkv"]
    size = qkv_HWC.shape[0], qkv_HWC.shape[1]
    q_hnd, k_hnd, v_hnd = (split_heads(x_HWC, cast(int, mixer.num_heads)) for x_HWC in qkv_HWC.chunk(3, dim=-1))
    return Heads(q_hnd, k_hnd, v_hnd, size, tuple(divided(numbered(size, qkv_HWC.device))), size)
