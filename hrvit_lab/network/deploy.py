"""Convert a network to its form for inference: the same function with fewer and faster operators.

- BatchNorms are folded into the convolution or linear before them. The attribute ``batch_norms`` of a module lists
  these pairs by attribute name.
- The bias of a block's shortcut is added to the bias of the output projection of its attention.
- Modules with a method ``served()``, and dense convolutions, are replaced by an equivalent that is faster in inference.
- Sums and activations overwrite outputs of earlier modules (``inplace``), so outputs kept by forward hooks can change
  later. Use the plain network to inspect activations.
"""

import copy
from itertools import pairwise
from typing import TypeVar, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from hrvit_lab.network.blocks import DES, Block, ServedBlock
from hrvit_lab.network.blocks.des import bias_of_left
from hrvit_lab.network.blocks.served_conv import served_conv

Network = TypeVar("Network", bound=nn.Module)


def deploy(model: Network) -> Network:
    """A copy for inference with the same inputs and, up to rounding, the same outputs.

    Args:
        model: an HRViT; it is not changed.

    Returns:
        The copy in evaluation mode. It is not meant for training, and its state dict has other names.
    """
    served = copy.deepcopy(model).eval().requires_grad_(False)
    if any(isinstance(part, ServedBlock) for part in served.modules()):
        return served  # the model was already deployed
    for part in list(served.modules()):
        for layer, batch_norm in _batch_norm_pairs(part):
            _fold(part, layer, batch_norm)
    for part in list(served.modules()):
        if isinstance(part, Block) and isinstance(part.shortcut, DES):
            cast(nn.Linear, part.attn.proj).bias.add_(bias_of_left(part.shortcut))
    for part in reversed(list(served.modules())):  # submodules first
        if hasattr(part, "inplace"):
            part.inplace = True  # type: ignore[assignment]
        for name, child in part.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(part, name, served_conv(child))
            elif hasattr(child, "served"):
                setattr(part, name, child.served())  # type: ignore[operator]
    return served.requires_grad_(False).to(memory_format=torch.channels_last)


def _batch_norm_pairs(part: nn.Module) -> list[tuple[str, str]]:
    """Names of (convolution or linear, BatchNorm) that directly follow each other in ``part``."""
    if isinstance(part, nn.Sequential):
        return [(a, b) for a, b in pairwise(part._modules) if isinstance(part._modules[b], nn.BatchNorm2d)]
    pairs = getattr(part, "batch_norms", ())
    return [(a, b) for a, b in pairs if isinstance(part._modules[b], _BatchNorm)]


def _fold(part: nn.Module, layer_name: str, norm_name: str) -> None:
    layer, norm = part._modules[layer_name], cast(_BatchNorm, part._modules[norm_name])
    folded: nn.Module
    if isinstance(layer, nn.Conv2d):
        folded = fuse_conv_bn_eval(layer, norm)
    else:
        folded = fuse_linear_bn_eval(cast(nn.Linear, layer), norm)
    setattr(part, layer_name, folded)
    if isinstance(part, nn.Sequential):
        del part._modules[norm_name]
    else:
        setattr(part, norm_name, nn.Identity())
