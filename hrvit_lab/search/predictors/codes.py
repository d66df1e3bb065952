"""Predictor from the signs of the inputs of activations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hrvit_lab.search.predictors import Batch

aten = torch.ops.aten
ACTIVATIONS = (
    aten.relu, aten.relu_, aten.gelu, aten.gelu_, aten.hardswish, aten.hardswish_, aten.silu, aten.silu_,
)  # fmt: skip


def naswot(model: nn.Module, batch: Batch) -> float:
    """``log |det K|``, where ``K_ij`` is the number of activations whose inputs have equal signs for images i and j.

    The paper (arXiv 2006.04647) has ReLUs; here, all activations count. It is −∞ if two images have equal signs.
    """
    with torch.no_grad(), _Inputs() as inputs:
        model(batch.images)
    images = len(batch.images)
    return log_determinant([x.reshape(images, -1) for x in inputs.found if len(x) % images == 0])


def log_determinant(signs: Sequence[Tensor]) -> float:
    """The score of sign patterns, each (images, activations) of bools."""
    kernel = torch.zeros(len(signs[0]), len(signs[0]), dtype=torch.float64)
    for pattern in signs:
        code = pattern.float()
        kernel += (code @ code.T + (1 - code) @ (1 - code).T).double()
    return float(torch.linalg.slogdet(kernel).logabsdet)


class _Inputs(TorchDispatchMode):
    """Collects where the inputs of activations are positive. Scalars and vectors are weights, and left out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket in ACTIVATIONS and args[0].ndim > 1:
            self.found.append(args[0] > 0)
        call: Callable[..., Any] = func
        return call(*args, **(kwargs or {}))
