"""A digest of tensors: equal for equal names, shapes and values."""

import hashlib
from collections.abc import Mapping

from torch import Tensor


def digest(tensors: Mapping[str, Tensor | None]) -> str:
    """16 hexadecimal digits of names and values."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
