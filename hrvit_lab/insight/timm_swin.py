"""Attention of timm's Swin transformers (arXiv 2103.14030): shifted windows with a bias for every relative position."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hrvit_lab.insight.heads import Group, Heads, Size
from hrvit_lab.insight.hooks import capture
from hrvit_lab.insight.places import BlockPlace, check_image, patch_size


def swin_attention(
    model: nn.Module, image_1CHW: Tensor, names: Sequence[str], known: Sequence[str]
) -> dict[BlockPlace, Heads]:
    """Queries, keys and values of modules of type ``WindowAttention``, from hooks.

    timm pads a map that its windows don't divide. Padding is attended to like any token; its weight has no place on the
    map (`Heads.prefix`).

    Args:
        names: of the attention modules to read, such as ``"layers.0.blocks.1.attn"``.
        known: all of the model's attention modules, in the order of execution.
    Raises:
        ConfigError: for an image that patches do not cover.
    """
    patch = patch_size(model, check_image(image_1CHW))
    blocks = {name: name.removesuffix(".attn") for name in known}
    stage_of = {name: block.rpartition(".blocks.")[0] for name, block in blocks.items()}
    stages = list(dict.fromkeys(stage_of.values()))
    seen = capture(
        model, image_1CHW, outputs=[f"{name}.qkv" for name in names], inputs=[blocks[name] for name in names]
    )
    found = {}
    for name in names:
        block: Any = model.get_submodule(blocks[name])
        size = tuple(seen.inputs[blocks[name]].shape[1:3])
        stage = stages.index(stage_of[name])
        number = [other for other in known if stage_of[other] == stage_of[name]].index(name)
        stride = patch[0] << stage, patch[1] << stage  # a map of odd sides is padded before it is halved
        title = f"stage {stage}, block {number}"
        place = BlockPlace(name, stage, 0, number, "timm", stride, title)
        found[place] = _heads(block, seen.outputs[f"{name}.qkv"].detach().float(), size)
    return found


def _heads(block: Any, qkv_Nnc: Tensor, size: Size) -> Heads:
    """Heads of one block from the output of ``qkv``, (windows, tokens per window, 3 · channels)."""
    windows_Nn, padding = _windows(size, block.window_size, block.shift_size, qkv_Nnc.device)
    heads = block.attn.num_heads
    tokens = torch.empty_like(windows_Nn.flatten())
    tokens[windows_Nn.flatten()] = torch.arange(len(tokens), device=tokens.device)
    q_hnd, k_hnd, v_hnd = qkv_Nnc.flatten(0, 1)[tokens].unflatten(-1, (3, heads, -1)).permute(1, 2, 0, 3)
    table_rh, pairs_nn = block.attn.relative_position_bias_table, block.attn.relative_position_index
    bias_hnn = table_rh[pairs_nn].permute(2, 0, 1).detach().float()
    groups = _grouped(windows_Nn, bias_hnn, block.get_attn_mask(x=windows_Nn.new_empty(1, *_padded(size, block), 1)))
    return Heads(q_hnd, k_hnd, v_hnd, size, groups, size, prefix=padding)


def _padded(size: Size, block: Any) -> Size:
    """Height and width of a map whose sides are multiples of the window."""
    tall, wide = (-(-side // window) * window for side, window in zip(size, block.window_size, strict=True))
    return tall, wide


def _grouped(windows_Nn: Tensor, bias_hnn: Tensor, mask_Nnn: Tensor | None) -> tuple[Group, ...]:
    """Windows with equal masks form a group, as a group's bias is the same for all of its windows."""
    if mask_Nnn is None:
        return (Group(slice(None), windows_Nn, windows_Nn, bias_hnn),)
    masks, which = torch.unique(mask_Nnn, dim=0, return_inverse=True)
    return tuple(
        Group(slice(None), windows_Nn[which == number], windows_Nn[which == number], bias_hnn + mask_nn)
        for number, mask_nn in enumerate(masks)
    )


def _windows(size: Size, window: Size, shift: Size, device: torch.device) -> tuple[Tensor, int]:
    """(numbers of the tokens of each window, (N, n); number of tokens of padding).

    Tokens of padding have the first numbers; those of the map follow, row by row.
    """
    (H, W), (h, w) = size, window
    tall, wide = -(-H // h) * h, -(-W // w) * w
    padding = tall * wide - H * W
    rolled_HW = torch.arange(padding, tall * wide, device=device).view(H, W).roll((-shift[0], -shift[1]), (0, 1))
    padded_HW = rolled_HW.new_full((tall, wide), -1)
    padded_HW[:H, :W] = rolled_HW
    padded_HW[padded_HW < 0] = torch.arange(padding, device=device)
    return padded_HW.unflatten(1, (-1, w)).unflatten(0, (-1, h)).transpose(1, 2).reshape(-1, h * w), padding
