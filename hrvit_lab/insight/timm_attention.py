"""Attention of timm's models, where their attention modules show queries and keys: vision transformers and Swin."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError, suggest
from hrvit_lab.insight.heads import Group, Heads
from hrvit_lab.insight.hooks import capture
from hrvit_lab.insight.places import BlockPlace, check_image, patch_size
from hrvit_lab.insight.timm_swin import swin_attention


def attention_modules(model: nn.Module) -> dict[str, "Reader"]:
    """The attention modules whose type is in `READERS`, by name, each with its reader."""
    types = {name: f"{type(module).__module__}.{type(module).__name__}" for name, module in model.named_modules()}
    return {name: READERS[kind] for name, kind in types.items() if kind in READERS}


def timm_attention(model: nn.Module, image_1CHW: Tensor, names: Sequence[str] | None = None) -> dict[BlockPlace, Heads]:
    """Queries, keys and values of attention modules whose type is in `READERS`, from hooks.

    Attention of other types is not read, because its maps depend on more.

    Args:
        names: of attention modules, such as ``"blocks.3.attn"``; None: all.
    Raises:
        ConfigError: for an unknown module, or a model without such modules.
    """
    check_image(image_1CHW)
    readers = attention_modules(model)
    if not readers:
        raise ConfigError(
            f"{type(model).__name__} shows no attention: insight reads HRViTs, Swin and the standard attention of "
            "timm's vision transformers; choose receptive_field, features or similarity for other models"
        )
    if unknown := next((name for name in names or () if name not in readers), None):
        raise ConfigError(f"unknown block {unknown!r:.80}; {suggest(unknown, readers)}")
    found: dict[BlockPlace, Heads] = {}
    for reader in dict.fromkeys(readers.values()):
        known = [name for name in readers if readers[name] is reader]
        if chosen := [name for name in known if names is None or name in names]:
            found |= reader(model, image_1CHW, chosen, known)
    return found


def standard_attention(
    model: nn.Module, image_1CHW: Tensor, names: Sequence[str], known: Sequence[str]
) -> dict[BlockPlace, Heads]:
    """Queries, keys and values of modules of type ``timm.layers.Attention``, from hooks on their norms.

    Args:
        names: of the attention modules to read.
        known: all of the model's attention modules, in the order of execution.
    Raises:
        ConfigError: if the tokens are not those of the patches.
    """
    image = check_image(image_1CHW)
    stride = patch_size(model, image)
    parts = ("q_norm", "k_norm", "qkv")
    seen = capture(model, image_1CHW, outputs=[f"{name}.{part}" for name in names for part in parts]).outputs
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    size = -(-image[0] // stride[0]), -(-image[1] // stride[1])
    found = {}
    for name in names:
        q_hnd, k_hnd = (seen[f"{name}.{part}"][0].detach().float() for part in ("q_norm", "k_norm"))
        heads, tokens, _ = q_hnd.shape
        if tokens != prefix + size[0] * size[1]:
            raise ConfigError(
                f"{name} has {tokens} tokens, which are not {prefix} and a grid of {size[0]} × {size[1]}; its maps "
                "can't be drawn on the image"
            )
        v_hnd = seen[f"{name}.qkv"][0].detach().float().view(tokens, 3, heads, -1)[:, 2].transpose(0, 1)
        everyone = torch.arange(tokens, device=q_hnd.device).view(1, -1)
        number = known.index(name)
        place = BlockPlace(name, 0, 0, number, "timm", stride, f"block {number}")
        group = Group(slice(None), everyone, everyone)
        found[place] = Heads(q_hnd, k_hnd, v_hnd, size, (group,), size, prefix=prefix)
    return found


Reader = Callable[[nn.Module, Tensor, Sequence[str], Sequence[str]], dict[BlockPlace, Heads]]
READERS: dict[str, Reader] = {
    "timm.layers.attention.Attention": standard_attention,
    "timm.models.swin_transformer.WindowAttention": swin_attention,
}
"""By the full name of an attention module's type, so that timm need not be imported."""
