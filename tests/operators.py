"""Counts what really runs: every dispatched operator that is no view."""

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class RealOperators(TorchDispatchMode):
    """``calls[name]`` of every operator that makes or changes a tensor; views, which move nothing, are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func is not torch.ops.aten._unsafe_view.default:
            self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def count_real_operators(model: nn.Module, image: torch.Tensor) -> int:
    """Real operators of one forward pass without gradients."""
    with torch.no_grad(), RealOperators() as operators:
        model(image)
    return operators.calls.total()
