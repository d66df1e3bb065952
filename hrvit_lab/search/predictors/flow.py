"""Predictors from the sum of the outputs for an image of ones, with the absolute values of all weights, in float64."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from hrvit_lab.network.blocks import Block
from hrvit_lab.search.predictors import Batch
from hrvit_lab.search.predictors.gradients import layers


def synflow(model: nn.Module, batch: Batch) -> float:
    """``log Σ θ ∂R/∂θ`` over all weights, with R the sum of the outputs (arXiv 2006.05467).

    R is the flow through the weights, so norms and biases are left out, and attention averages its values with equal
    weights. The logarithm keeps the ranks; it is −∞ if R does not depend on the weights.
    """
    _without_norms(model)
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] == "bias":
            parameter.data.zero_()
    with _EqualAttention():
        weights, gradients = _flow(model, batch)
    total = sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True))
    return math.log(total) if total != 0 else -math.inf


def dss(model: nn.Module, batch: Batch) -> float:
    """Synaptic diversity of attention plus synaptic saliency of feed-forward networks (arXiv 2203.12217).

    ``Σ ‖∂R/∂W‖_* ‖W‖_*`` over the matrices of attention, with the nuclear norm, and ``Σ W ∂R/∂W`` over the weights of
    feed-forward networks, with R the sum of the outputs.
    """
    weights, gradients = _flow(model, batch)
    by_weight = {id(w): (w.detach(), g) for w, g in zip(weights, gradients, strict=True)}
    total = 0.0
    for block in model.modules():
        if isinstance(block, Block):
            for weight in layers(block.attn):
                if weight.ndim == 2:
                    w, g = by_weight[id(weight)]
                    total += float(torch.linalg.matrix_norm(g, "nuc") * torch.linalg.matrix_norm(w, "nuc"))
            for weight in layers(block.ffn) if block.ffn is not None else ():
                w, g = by_weight[id(weight)]
                total += float((w * g).sum())
    return total


def _flow(model: nn.Module, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """The absolute weights, and the gradient of the sum of the outputs with respect to each."""
    model.double().eval()
    for parameter in model.parameters():
        parameter.data.abs_()
    ones = torch.ones(1, *batch.images.shape[1:], dtype=torch.float64)
    outputs = [leaf for leaf in tree_leaves(model(ones)) if isinstance(leaf, Tensor)]
    weights = layers(model)
    found = torch.autograd.grad(torch.stack([y.sum() for y in outputs]).sum(), weights, allow_unused=True)
    return weights, [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]


def _without_norms(model: nn.Module) -> None:
    """Replace BatchNorms and LayerNorms by identities."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm | nn.LayerNorm):
                setattr(module, name, nn.Identity())


class _EqualAttention(TorchFunctionMode):
    """In this context, every softmax gives equal weights."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            q, _, v = args[:3]
            return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])
        if func in (torch.softmax, F.softmax, Tensor.softmax):
            dim = (kwargs or {}).get("dim", args[1] if len(args) > 1 else None)
            return torch.full_like(args[0], 1 / args[0].shape[dim])
        call: Callable[..., Any] = func
        return call(*args, **(kwargs or {}))
