"""Predictors from the gradient of the loss at initialisation. Layers are the parameters with two or more dimensions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.search.predictors import Batch

PARTS = 2
"""Parts of the batch between which ZiCo compares gradients, as in its paper."""


def grad_norm(model: nn.Module, batch: Batch) -> float:
    """``Σ_l ‖∂L/∂θ_l‖₂``, the sum of the norms of all layers' gradients (arXiv 2101.08134)."""
    return sum(float(gradient.norm()) for gradient in loss_gradients(model, *batch))


def snip(model: nn.Module, batch: Batch) -> float:
    """``Σ |θ ∂L/∂θ|`` over all weights: how much the loss reacts to their removal (arXiv 1810.02340)."""
    gradients = loss_gradients(model, *batch)
    return sum(float((w.detach() * g).abs().sum()) for w, g in zip(layers(model), gradients, strict=True))


def zico(model: nn.Module, batch: Batch) -> float:
    """``Σ_l log Σ_θ mean |∂L_i/∂θ| / std |∂L_i/∂θ|`` over parts i of the batch (arXiv 2301.11300).

    Weights whose gradient is equal in all parts are left out, and layers without any other weight.
    """
    images, labels = batch.images.tensor_split(PARTS), batch.labels.tensor_split(PARTS)
    by_part = [loss_gradients(model, *part) for part in zip(images, labels, strict=True)]
    total = 0.0
    for gradients in zip(*by_part, strict=True):
        sizes = torch.stack(gradients).abs().double()
        mean, std = sizes.mean(0), sizes.std(0, correction=0)
        varied = std > 0
        if varied.any():
            total += float((mean[varied] / std[varied]).sum().log())
    return total


def layers(model: nn.Module) -> list[Tensor]:
    """The weights with two or more dimensions."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


def loss_gradients(model: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> list[Tensor]:
    """The gradient of the mean cross-entropy with respect to each layer; 0 for layers that are not used."""
    loss = F.cross_entropy(model(images_BCHW), labels_B)
    weights = layers(model)
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
