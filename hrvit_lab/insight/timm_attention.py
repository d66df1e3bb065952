"""Attention of timm's models, where their attention modules show queries and keys: vision transformers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError, suggest
from hrvit_lab.insight.heads import Group, Heads
from hrvit_lab.insight.hooks import capture
from hrvit_lab.insight.places import BlockPlace, check_image


def timm_attention(model: nn.Module, image_1CHW: Tensor, names: Sequence[str] | None = None) -> dict[BlockPlace, Heads]:
    """Queries, keys and values of modules of type ``timm.layers.Attention``, from hooks on their norms.

    Attention of other types (with rotations, masks, or windows) is not read, because its maps depend on more.

    Args:
        names: of attention modules, such as ``"blocks.3.attn"``; None: all.
    Raises:
        ConfigError: for an unknown module, or a model without such modules.
    """
    from timm.layers.attention import Attention  # imported here because timm is slow to import

    image = check_image(image_1CHW)
    known = {name: module for name, module in model.named_modules() if type(module) is Attention}
    grid: Any = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if not known or grid is None:
        raise ConfigError(
            f"{type(model).__name__} shows no attention: insight reads HRViTs and the standard attention of timm's "
            "vision transformers; choose receptive_field, features or similarity for other models"
        )
    if unknown := next((name for name in names or () if name not in known), None):
        raise ConfigError(f"unknown block {unknown!r:.80}; {suggest(unknown, known)}")
    chosen = [name for name in known if names is None or name in names]
    parts = ("q_norm", "k_norm", "qkv")
    seen = capture(model, image_1CHW, outputs=[f"{name}.{part}" for name in chosen for part in parts]).outputs
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    size = int(grid[0]), int(grid[1])
    stride = image[0] // size[0], image[1] // size[1]
    found = {}
    for name in chosen:
        q_hnd, k_hnd = (seen[f"{name}.{part}"][0].detach().float() for part in ("q_norm", "k_norm"))
        heads, tokens, _ = q_hnd.shape
        if tokens != prefix + size[0] * size[1]:
            raise ConfigError(
                f"{name} has {tokens} tokens, which are not {prefix} and a grid of {size[0]} × {size[1]}; its maps "
                "can't be drawn on the image"
            )
        v_hnd = seen[f"{name}.qkv"][0].detach().float().view(tokens, 3, heads, -1)[:, 2].transpose(0, 1)
        everyone = torch.arange(tokens, device=q_hnd.device).view(1, -1)
        number = list(known).index(name)
        place = BlockPlace(name, 0, 0, number, "timm", stride, f"block {number}")
        group = Group(slice(None), everyone, everyone)
        found[place] = Heads(q_hnd, k_hnd, v_hnd, size, (group,), size, prefix=prefix)
    return found
