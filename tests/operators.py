"""Count the operators that really run: every dispatched operator except views."""

from collections import Counter
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hrvit_lab.cost.count import Counts

aten = torch.ops.aten
PRODUCTS = {aten.convolution, aten.addmm, aten.mm, aten.bmm, aten.baddbmm}


class TorchFlops(TorchDispatchMode):
    """Floating-point operations by torch's own formulas, and the elements in the outputs of products.

    ``FlopCounterMode`` has the same sum. It also keeps a sum for every module, and takes four times as long.

    A product that is accumulated into an earlier one has no output of its own. In MixCFN, this is the last linear of
    the second half: it is the only linear without bias (``mm``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.activations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        if func.overloadpacket in PRODUCTS and func is not aten.mm.default:
            self.activations += out.numel()
        return out


class RealOperators(TorchDispatchMode):
    """``calls[name]``: calls of every operator that creates or changes a tensor. Views are not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func is not torch.ops.aten._unsafe_view.default:
            self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def count_real_operators(model: nn.Module, image: torch.Tensor) -> int:
    """Number of real operators of one forward pass without gradients."""
    with torch.no_grad(), RealOperators() as operators:
        model(image)
    return operators.calls.total()


def continued_outputs(closed: Counts) -> int:
    """Elements of outputs that do not count in the closed form, but are separate tensors when the network runs.

    They are the outputs of the last linears of the second halves of MixCFNs. The last linears of both halves are parts
    of one linear, whose output counts once.
    """
    costs = [row.cost for row in closed.rows]
    return sum(first.outputs for first, second in pairwise(costs) if second.macs and not second.outputs)
