"""Which entries of a larger network's weights a smaller network has.

Of channels, heads and hidden channels, these are the leading ones; of kernels and tables of relative positions, those
in the middle. Channels that consist of several parts, such as query and value, are cut in each of them.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from hrvit_lab.network.blocks import Attention, CrossShaped, CrossShapedQKV, CSWin

HALVED = (CrossShaped, CrossShapedQKV, CSWin)
"""Mixers whose channels are those of horizontal stripes, then those of vertical ones."""
PROJECTIONS = {"to_qv": 2, "to_kv": 2, "to_qkv": 3}
"""Linears of mixers with several outputs, and their number."""

Parts = Mapping[int, int]
"""Dimension of a tensor → number of its parts of equal size; one if it is not listed."""


def parts_of(model: nn.Module) -> dict[str, Parts]:
    """The parameters with a dimension that consists of several parts, by name."""
    found: dict[str, Parts] = {}
    for path, attention in model.named_modules():
        if not isinstance(attention, Attention):
            continue
        halves = 2 if isinstance(attention.mixer, HALVED) else 1
        for name, outputs in PROJECTIONS.items():
            for kind in ("weight", "bias"):
                found[f"{path}.mixer.{name}.{kind}"] = {0: outputs * halves}
        for kind in ("weight", "bias"):
            found[f"{path}.parallel_conv.{kind}"] = {0: halves}
        found[f"{path}.proj.weight"] = {1: halves}
    return found


def cut(tensor: Tensor, shape: Sequence[int], parts: Parts) -> Tensor:
    """The entries of a tensor that a smaller one has; gradients of the result reach them.

    Args:
        tensor: of the larger network. The last two of three or more dimensions are those of a kernel or table.
        shape: of the smaller network's tensor; in no dimension larger.
        parts: of the dimensions of channels.
    """
    assert tensor.ndim == len(shape)
    channels = tensor.ndim if tensor.ndim < 3 else tensor.ndim - 2
    for dim, (size, have) in enumerate(zip(shape, tensor.shape, strict=True)):
        if size == have:
            continue
        if dim >= channels:
            assert (have - size) % 2 == 0
            tensor = tensor.narrow(dim, (have - size) // 2, size)
        else:
            number = parts.get(dim, 1)
            assert size % number == have % number == 0
            tensor = tensor.unflatten(dim, (number, -1)).narrow(dim + 1, 0, size // number).flatten(dim, dim + 1)
    return tensor
