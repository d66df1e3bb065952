"""BatchNorm over the batches of all processes, on any device.

``torch.nn.SyncBatchNorm`` supports CUDA devices only. This module uses two differentiable sums over all processes, so
it also runs on CPUs. Mean and variance are computed in float32 in two passes; processes may have different numbers of
values.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Summed(torch.autograd.Function):
    """The sum over all processes. The loss of every process depends on it, so its gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(_BatchNorm):
    """A BatchNorm with statistics over all processes in training mode, and a standard BatchNorm in evaluation mode.

    Shape: (B, C, …) → (B, C, …).
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        x = input.float()
        count = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        sums = _Summed.apply(torch.cat([x.sum(axes), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x - mean.view(shape)
        variance = _Summed.apply(centred.square().sum(axes)) / total
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * (total / (total - 1)))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics like ``torch.nn.BatchNorm2d``."""
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def synchronised(model: nn.Module) -> nn.Module:
    """Replace every BatchNorm of the model by a synchronized one with the same tensors, in place.

    Returns:
        The model; if it is a BatchNorm itself, its replacement.
    """
    if isinstance(model, _BatchNorm) and not isinstance(model, nn.SyncBatchNorm | SyncBatchNorm):
        if next(model.parameters(), torch.empty(0)).device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        norm = SyncBatchNorm(model.num_features, model.eps, model.momentum, model.affine, model.track_running_stats)
        norm.weight, norm.bias = model.weight, model.bias
        norm.running_mean, norm.running_var = model.running_mean, model.running_var
        norm.num_batches_tracked = model.num_batches_tracked
        return norm.train(model.training)
    for name, child in model.named_children():
        replacement = synchronised(child)
        if replacement is not child:
            setattr(model, name, replacement)
    return model
