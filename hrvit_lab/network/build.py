"""Build a network from a config: the parts of the plan as modules, with initialization."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hrvit_lab.config import ConfigError, HRViTConfig, read_config, shipped
from hrvit_lab.config.plan import Part, StagePlan, plan
from hrvit_lab.config.text import shortened
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
from hrvit_lab.network.checkpoints import load_checkpoint
from hrvit_lab.network.heads import HEAD
from hrvit_lab.network.model import HRViT


def build(config: HRViTConfig) -> HRViT:
    """Build the network that a config describes, with PyTorch's initialisation (seed with ``torch.manual_seed``)."""
    planned = plan(config)
    fusions, stages = [], []
    for stage, rates in zip(planned.stages, config.drop_path_rates, strict=True):
        fusions.append(_module(stage.fusion))
        stages.append(_stage(config, stage, rates))
    head = _module(planned.head, drop_rate=config.drop_rate) if planned.head else None
    model = HRViT(config, _module(planned.stem), fusions, stages, head)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = config.norm_eps
    model.set_grad_checkpointing(config.grad_checkpointing)
    # The memory format of the maps; otherwise every convolution would copy its weights first.
    return model.to(memory_format=torch.channels_last)


MODULES: Mapping[str, Mapping[str, Callable[..., nn.Module] | None]] = {
    "stem": STEM,
    "fusion": FUSION,
    "patch_embed": PATCH_EMBED,
    "norm": {"": nn.LayerNorm},
    "shortcut": SHORTCUT,
    "ffn": FFNS,
    "head": HEAD,
}
"""Modules by kind of part, for kinds whose modules take the plan's arguments directly."""


def _module(part: Part | None, **rates: float) -> nn.Module:
    if part is None:
        return nn.Identity()
    make = MODULES[part.kind][part.variant]
    assert make is not None
    return make(*part.arguments, **rates)


def _stage(config: HRViTConfig, stage: StagePlan, drop_path_rates: Sequence[float]) -> Stage:
    # The order of construction determines the random initial weights.
    embeds = [_module(branch.patch_embed) for branch in stage.branches]
    branches = [
        [_block(block, drop_path_rates[j], config.proj_drop_rate) for j, block in enumerate(branch.blocks)]
        for branch in stage.branches
    ]
    norms = [_module(branch.norm) for branch in stage.branches]
    if stage.fusion:
        return Stage(embeds, branches, norms)
    return PyramidStage(embeds[0], branches[0], norms[0], first=stage.branches[0].number == 0)


def _block(block: Part, drop_path: float, proj_drop: float) -> Block:
    parts = {part.kind: part for part in block.inside}
    dim, head_dim, window_size, parallel_conv, activation, batch_norm = parts["attention"].arguments
    attention = Attention(
        dim,
        ATTENTION[parts["attention"].variant](dim, head_dim, window_size),
        parallel_conv=parallel_conv,
        activation=activation,
        batch_norm=batch_norm,
        proj_drop=proj_drop,
    )
    ffn = _module(parts["ffn"]) if "ffn" in parts else None
    return Block(dim, attention, _module(parts["shortcut"]), ffn, drop_path)


def create_model(variant: str | Path | HRViTConfig, *, pretrained: bool = False, **changes: Any) -> HRViT:
    """Build a preset, the config in a YAML file, or a config, with some fields changed.

    >>> create_model("hrvit_nano", num_classes=10).config.num_classes
    10

    Args:
        pretrained: load the trained weights that ship with the package, as for ``hrvit_nano.fashion_mnist``. With
            another number of classes the classifier keeps its random weights; other input channels by timm's rule.
    Raises:
        ConfigError: for an unknown preset, a file that cannot be read, or an invalid field; with
            ``pretrained``, for a network without trained weights, or changes that do not fit the weights.
    """
    config = read_config(variant) if isinstance(variant, str | Path) else variant
    if not isinstance(config, HRViTConfig):
        raise ConfigError(f"variant is a {type(config).__name__}; give a preset's name, a YAML file or an HRViTConfig")
    model = build(config.replace(**changes) if changes else config)
    if pretrained:
        load_checkpoint(model, shipped_weights(str(variant)), adapt=True)
    return model


def shipped_weights(name: str) -> Path:
    """File of a network's trained weights.

    Raises:
        ConfigError: if the package has none for this network; the message names the networks that have some.
    """
    if name not in shipped():
        raise ConfigError(
            f"{shortened(name)} has no trained weights in this package; use one of {', '.join(shipped()) or 'none'}, "
            "or load_checkpoint(model, your_checkpoint)"
        )
    return shipped()[name].weights
