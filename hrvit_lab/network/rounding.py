"""How far two outputs of one network are apart, and how far rounding explains it."""

import math
from typing import Any

from torch.utils._pytree import tree_leaves

TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest relative error by number format that rounding explains in a network of about a hundred layers with random
weights."""

INT8_TOLERANCE = 0.5
"""Largest relative error of int8 products, more than rounding explains. It finds only a network that computes something
else: an int8 network is judged by its accuracy on real images."""


def tolerance_of(dtype: str) -> float:
    """The largest relative error of products in a number format: a key of ``TOLERANCES``, or ``"int8"``."""
    return INT8_TOLERANCE if dtype == "int8" else TOLERANCES[dtype]


def relative_error(output: Any, reference: Any) -> float:
    """‖output − reference‖₂ / ‖reference‖₂ over all elements of tensors, or of lists of tensors; infinite if the shapes
    differ.

    >>> import torch
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
