"""The numerics gate: compares outputs with a float32 reference. An entry with wrong outputs is reported, not timed."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hrvit_lab.network.rounding import relative_error, tolerance_of

CHUNK = 8
"""Images per call of the reference, so that it fits into memory wherever the tested network does."""


@dataclass(frozen=True)
class Finding:
    """How far an output is from the reference.

    Attributes:
        relative_error: norm of the difference divided by the norm of the reference; infinite if not finite.
        tolerance: the largest error that passes.
    """

    relative_error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.relative_error <= self.tolerance


def check(output: Any, reference: Any, dtype: str) -> Finding:
    """Compare two outputs (tensors, or lists of tensors) for the same weights and input.

    Args:
        output: of the tested network, in any number format.
        reference: of the plain network, eager, in float32.
        dtype: number format of its products: as for `tolerance_of`.
    """
    return Finding(relative_error(output, reference), tolerance_of(dtype))


@torch.inference_mode()
def reference_output(plain: nn.Module, images_BCHW: Tensor) -> list[Tensor]:
    """Outputs of a network in float32, eager and in eval mode, computed in chunks of ``CHUNK`` images.

    Args:
        plain: the network as it is defined; it is not changed.
        images_BCHW: (B, C, H, W), float32, on the device to compute on.
    """
    model = copy.deepcopy(plain).to(images_BCHW.device, torch.float32).eval()
    chunks = [tree_leaves(model(chunk)) for chunk in images_BCHW.split(CHUNK)]
    return [torch.cat(leaves) for leaves in zip(*chunks, strict=True)]


def reference_gradients(plain: nn.Module, images_BCHW: Tensor) -> list[Tensor]:
    """Gradients of ``training_step`` in float32, eager and in eval mode, computed in chunks like ``reference_output``:
    the mean over the batch is the mean over chunks, weighted by their sizes."""
    model = copy.deepcopy(plain).to(images_BCHW.device, torch.float32).eval()
    for chunk in images_BCHW.split(CHUNK):
        (mean_square(model(chunk)) * (len(chunk) / len(images_BCHW))).backward()
    return step_gradients(model)


def training_step(model: nn.Module, forward: Callable[[], Any]) -> None:
    """Forward pass, mean square of all outputs as the loss, backward pass to new gradients; no optimizer."""
    model.zero_grad(set_to_none=True)
    mean_square(forward()).backward()


def mean_square(output: Any) -> Tensor:
    """The sum over output tensors of their mean squares: a loss that needs no labels."""
    return torch.stack([tensor.float().square().mean() for tensor in tree_leaves(output)]).sum()


def step_gradients(model: nn.Module) -> list[Tensor]:
    """Gradients of all parameters that have one, in the order of the parameters."""
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
