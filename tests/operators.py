"""Counts what really runs: every dispatched operator that is no view."""

from collections import Counter
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hrvit_lab.cost.count import Counts


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


def continued_outputs(closed: Counts) -> int:
    """Elements of outputs that are sums in the closed form and tensors of their own when the network runs.

    They are those of the linears that end the second halves of MixCFNs: with the linear before, each is a part of one
    linear, whose output counts once.
    """
    costs = [row.cost for row in closed.rows]
    return sum(first.outputs for first, second in pairwise(costs) if second.macs and not second.outputs)
