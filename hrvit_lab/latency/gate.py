"""The numerics gate: compares outputs with a float32 reference. An entry with wrong outputs is reported, not timed."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest relative error by number format that rounding explains in a network of about a hundred layers with random
weights."""

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
        dtype: a key of ``TOLERANCES``.
    """
    return Finding(relative_error(output, reference), TOLERANCES[dtype])


def relative_error(output: Any, reference: Any) -> float:
    """‖output − reference‖₂ / ‖reference‖₂ over all elements; infinite if the shapes differ.

    >>> relative_error(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0]))
    0.2
    """
    ours, theirs = tree_leaves(output), tree_leaves(reference)
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
        return math.inf
    error, size = 0.0, 0.0
    for a, b in zip(ours, theirs, strict=True):
        wanted = b.detach().double()
        error += (a.detach().to(wanted) - wanted).square().sum().item()
        size += wanted.square().sum().item()
    ratio = math.sqrt(error / size) if size else math.inf
    return ratio if math.isfinite(ratio) else math.inf


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
