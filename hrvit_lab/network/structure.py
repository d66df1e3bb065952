"""The structure of a network without the values of its weights, to check whether it still matches its config."""

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from hrvit_lab.config import HRViTConfig
from hrvit_lab.network.build import build
from hrvit_lab.network.model import HRViT

SWITCHES = {"training", "fused_attn", "grad_checkpointing", "inplace", "call_super_init"}
"""Settings that do not change the result of a module."""

Structure = tuple[tuple[Any, ...], ...]


def structure(model: nn.Module) -> Structure:
    """All modules by name: type, settings (strides, groups, heads, …), shapes of weights, hooks.

    Two networks of equal structure run the same operators on equal shapes.
    """
    return tuple(
        (name, type(module), *_settings(module)) for name, module in model.named_modules(remove_duplicate=False)
    )


def is_as_built(model: HRViT) -> bool:
    """Whether the model has the structure of its config: not deployed, no module or setting replaced."""
    return structure(model) == _built(model.config)


@lru_cache(maxsize=16)
def _built(config: HRViTConfig) -> Structure:
    with torch.device("meta"):
        return structure(build(config))


def _settings(module: nn.Module) -> tuple[Any, ...]:
    own = vars(module)
    plain = {
        name: value for name, value in own.items() if type(value) in (int, str, bool, tuple) and name not in SWITCHES
    }
    replaced = {name: getattr(value, "__qualname__", repr(value)) for name, value in own.items() if callable(value)}
    weights = {
        name: None if tensor is None else tensor.shape
        for tensors in (module._parameters, module._buffers)
        for name, tensor in tensors.items()
    }
    hooks = len(module._forward_pre_hooks) + len(module._forward_hooks)
    return plain, replaced, weights, hooks
