"""A lower bound on the memory of a training step, checked before training starts."""

import torch

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.ledger import totals
from hrvit_lab.cost.memory import peak_memory_bytes
from hrvit_lab.environment import available_memory

GIB = 2**30


def least_bytes(config: HRViTConfig, resolution: tuple[int, int], batch_size: int) -> int:
    """Bytes that a training step takes at its fullest moment, at least.

    The closed form of a forward pass in inference, and AdamW's two averages of every parameter. What is kept for the
    gradients comes on top and is often several times as much; there is no formula for it.
    """
    averages = 2 * totals(config, resolution).params * torch.float32.itemsize
    return peak_memory_bytes(config, resolution, batch_size=batch_size) + averages


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a CUDA device; for all others, in the machine's memory."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def too_large(config: HRViTConfig, resolution: tuple[int, int], batch_size: int, free: int) -> str:
    """One sentence: memory does not suffice for such a step, how much it takes at least, and what to do."""
    least = least_bytes(config, resolution, batch_size)
    return (
        f"out of memory: a training step of {batch_size:,} images at {resolution[0]}×{resolution[1]} needs at least "
        f"{least / GIB:,.1f} GiB, usually several times as much, and {free / GIB:,.1f} GiB are free; lower "
        "--batch-size or --resolution"
    )
