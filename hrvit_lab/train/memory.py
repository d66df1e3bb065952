"""Memory of a training: a lower bound for a step, checked before training starts, and what a process uses."""

import psutil
import torch

from hrvit_lab.config import HRViTConfig
from hrvit_lab.cost.ledger import totals
from hrvit_lab.cost.memory import peak_memory_bytes
from hrvit_lab.environment import available_memory
from hrvit_lab.files import MIB

GIB = 2**30


def least_bytes(config: HRViTConfig, resolution: tuple[int, int], batch_size: int) -> int:
    """A lower bound on the peak memory of a training step in bytes.

    It is the closed form for a forward pass in inference plus AdamW's two averages of every parameter. It does not
    include activations saved for the backward pass, which often take several times as much.
    """
    averages = 2 * totals(config, resolution).params * torch.float32.itemsize
    return peak_memory_bytes(config, resolution, batch_size=batch_size) + averages


def free_bytes(device: torch.device) -> int:
    """Free memory of a CUDA device in bytes; for all other devices, of the machine."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def used_mib(device: torch.device) -> float:
    """Memory of this process in MiB: on a CUDA device the maximum that torch allocated there, else the resident size.

    It does not include the memory of the processes that load images.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    return float(psutil.Process().memory_info().rss / MIB)


def too_large(config: HRViTConfig, resolution: tuple[int, int], batch_size: int, free: int) -> str:
    """The message for a training step that does not fit into memory."""
    least = least_bytes(config, resolution, batch_size)
    return (
        f"out of memory: a training step of {batch_size:,} images at {resolution[0]}×{resolution[1]} needs at least "
        f"{least / GIB:,.1f} GiB, usually several times as much, and {free / GIB:,.1f} GiB are free; lower "
        "--batch-size or --resolution"
    )
