"""Reference weights and inputs of the published network, made as for its recorded outputs."""

import csv
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"


def published_keys() -> dict[str, tuple[int, ...]]:
    """Shapes by key of the published b1's state dict, in its order."""
    with open(DATA / "hrvit_b1_state_dict.csv", newline="") as file:
        return {
            row["key"]: tuple(int(n) for n in row["shape"].split("x")) if row["shape"] else ()
            for row in csv.DictReader(file)
        }


def reference_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """The reference value of a key: seeded by its name."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    normal = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if key.endswith("running_mean"):
        value = 0.1 * normal
    elif key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(normal)
    elif len(shape) == 1:
        value = 1 + 0.1 * normal if key.endswith("weight") else 0.1 * normal
    else:
        value = normal / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def reference_state_dict(keys: dict[str, tuple[int, ...]] | None = None) -> dict[str, Tensor]:
    """Reference weights for ``keys`` (key → shape), by default the published b1's."""
    return {key: reference_tensor(key, shape) for key, shape in (keys or published_keys()).items()}


def reference_input(height: int, width: int) -> Tensor:
    """(1, 3, height, width)."""
    normal = np.random.default_rng(height * 10000 + width).standard_normal((1, 3, height, width))
    return torch.from_numpy(normal.astype(np.float32))
