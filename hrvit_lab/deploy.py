"""The network as it is served: the same function in fewer and better operators.

- In evaluation a BatchNorm is an affine map of what stands before it, so it folds into that convolution or linear. A
  part says which of its BatchNorms follows what in ``batch_norms``: pairs of attribute names.
- The bias of a block's shortcut joins the bias of its attention's projection.
- A part that has a faster form for inference gives it from ``served()``.
"""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from hrvit_lab.blocks import Block

Network = TypeVar("Network", bound=nn.Module)


def deploy(model: Network) -> Network:
    """A copy for inference: same inputs and outputs, to rounding.

    Args:
        model: any of ours; it is left as it is, in its mode and with its weights.
    Returns:
        The copy, in evaluation mode; it is not meant to be trained, and its state dict is its own.
    """
    served = copy.deepcopy(model).eval().requires_grad_(False)
    for part in list(served.modules()):
        for layer, batch_norm in _batch_norm_pairs(part):
            _fold(part, layer, batch_norm)
    for part in list(served.modules()):
        if isinstance(part, Block) and hasattr(part.shortcut, "take_bias"):
            part.attn.proj.bias += part.shortcut.take_bias()
    for part in list(served.modules()):
        for name, child in part.named_children():
            if hasattr(child, "served"):
                setattr(part, name, child.served())
    return served.to(memory_format=torch.channels_last)


def _batch_norm_pairs(part: nn.Module) -> list[tuple[str, str]]:
    """Names of (convolution or linear, BatchNorm) that directly follow each other in ``part``."""
    if isinstance(part, nn.Sequential):
        return [(a, b) for a, b in pairwise(part._modules) if isinstance(part._modules[b], nn.BatchNorm2d)]
    return list(getattr(part, "batch_norms", ()))


def _fold(part: nn.Module, layer_name: str, norm_name: str) -> None:
    layer, norm = part._modules[layer_name], part._modules[norm_name]
    if isinstance(layer, nn.Conv2d):
        setattr(part, layer_name, fuse_conv_bn_eval(layer, norm))  # type: ignore[type-var]
    else:
        assert isinstance(layer, nn.Linear)
        setattr(part, layer_name, fuse_linear_bn_eval(layer, norm))  # type: ignore[type-var]
    setattr(part, norm_name, nn.Identity())
