"""From a config to a network: the parts of the plan as modules, with their initialisation."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from hrvit_lab.config import ConfigError, HRViTConfig, read_config
from hrvit_lab.network.blocks import (
    ATTENTION,
    FFNS,
    FUSION,
    PATCH_EMBED,
    SHORTCUT,
    STEM,
    Attention,
    Block,
    PyramidStage,
    Stage,
)
from hrvit_lab.network.heads import HEAD
from hrvit_lab.network.model import HRViT
from hrvit_lab.parts.attention import variant_at


def build(config: HRViTConfig) -> HRViT:
    """Build the network that a config describes, with PyTorch's initialisation (seed with ``torch.manual_seed``)."""
    fusions, stages = (_pyramid if config.topology == "pyramid" else _parallel)(config)
    make_head = HEAD[config.head]
    head = (
        make_head(config.widths, config.head_widths, config.head_channels, config.num_classes, config.drop_rate)
        if make_head
        else None
    )
    model = HRViT(config, STEM[config.stem](config.in_chans, config.stem_width), fusions, stages, head)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = config.norm_eps
    model.set_grad_checkpointing(config.grad_checkpointing)
    # As the maps are laid out; else every convolution would copy its weights first.
    return model.to(memory_format=torch.channels_last)


def _parallel(config: HRViTConfig) -> tuple[list[nn.Module], list[Stage]]:
    dims: tuple[int, ...] = (config.stem_width,)
    fusions, stages = [], []
    for s, depths in enumerate(config.depths):
        widths = config.widths[: len(depths)]
        fused = dims + widths[len(dims) :]  # the previous widths; a new branch takes its own
        fusions.append(FUSION[config.fusion](dims, fused, config.upsample, s == len(config.depths) - 1))
        embeds = [PATCH_EMBED[config.patch_embed](c_in, dim, 1) for c_in, dim in zip(fused, widths, strict=True)]
        branches = range(len(depths))
        stages.append(Stage(embeds, [_blocks(config, s, s, b) for b in branches], [_norm(config, b) for b in branches]))
        dims = widths
    return fusions, stages


def _pyramid(config: HRViTConfig) -> tuple[list[nn.Module], list[Stage]]:
    stages: list[Stage] = []
    for b, dim in enumerate(config.widths):
        embed = PATCH_EMBED[config.patch_embed](config.widths[b - 1], dim, 2) if b else nn.Identity()
        stages.append(PyramidStage(embed, _blocks(config, b, 0, b), _norm(config, b), first=not b))
    return [nn.Identity() for _ in stages], stages


def _norm(config: HRViTConfig, branch: int) -> nn.Module:
    return nn.LayerNorm(config.widths[branch]) if config.branch_norm else nn.Identity()


def _blocks(config: HRViTConfig, stage: int, row: int, branch: int) -> list[Block]:
    """A branch's blocks in one stage, whose depth stands in ``row`` of the depths."""
    first, rates = config.first_block(row, branch), config.drop_path_rates[stage]
    return [_block(config, branch, first + j, rates[j]) for j in range(config.depths[row][branch])]


def _block(config: HRViTConfig, branch: int, block: int, drop_path: float) -> Block:
    dim = config.widths[branch]
    make_mixer = ATTENTION[variant_at(config.attention[branch], block)]
    attention = Attention(
        dim,
        make_mixer(dim, config.head_dims[branch], config.window_sizes[branch]),
        parallel_conv=config.parallel_conv,
        activation=config.attn_activation,
        batch_norm=config.attn_batch_norm,
        proj_drop=config.proj_drop_rate,
    )
    make_ffn = FFNS[config.ffn[branch]]
    ffn = make_ffn(dim, config.mlp_ratios[branch]) if make_ffn else None
    return Block(dim, attention, SHORTCUT[config.shortcut](dim), ffn, drop_path)


def create_model(variant: str | Path | HRViTConfig, **changes: Any) -> HRViT:
    """Build a preset, the config in a YAML file, or a config, with some fields changed.

    >>> create_model("hrvit_nano", num_classes=10).config.num_classes
    10

    Raises:
        ConfigError: for an unknown preset, a file that cannot be read, or an invalid field, with the remedy.
    """
    config = read_config(variant) if isinstance(variant, str | Path) else variant
    if not isinstance(config, HRViTConfig):
        raise ConfigError(f"variant is a {type(config).__name__}; give a preset's name, a YAML file or an HRViTConfig")
    return build(config.replace(**changes) if changes else config)
