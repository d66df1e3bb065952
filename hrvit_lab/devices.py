"""Checks of devices and numbers of CPU threads on this machine."""

import os
from typing import TYPE_CHECKING

from hrvit_lab.errors import ConfigError

if TYPE_CHECKING:
    import torch

THREADS_PER_CORE = 4
"""Maximum number of threads per core. More threads only slow a computation down; 100,000 crash the process."""


def find_device(name: str | None) -> "torch.device":
    """The torch device called ``name``; None: a CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: if it is not ``cpu``, ``cuda``, ``cuda:N`` or ``mps``, or this machine does not have it.
    """
    import torch  # imported here: parsing a command line does not need it

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if name not in ("cpu", "mps") and (kind != "cuda" or (":" in name and not index.isdecimal())):
        raise ConfigError(f"device {name!r} is unknown; use cpu, cuda, cuda:N or mps")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        present = torch.cuda.device_count()
        raise ConfigError(f"device {name!r} is not present: torch sees {present} CUDA devices; use cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps' is not present: torch finds no Apple GPU; use cpu")
    return torch.device(name)


def check_threads(threads: int | None) -> None:
    """Check a number of CPU threads; None is the default of torch.

    Raises:
        ConfigError: for less than 1, or more than ``THREADS_PER_CORE`` per core.
    """
    cores = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= THREADS_PER_CORE * cores:
        raise ConfigError(
            f"threads = {threads} is out of range for this machine's {cores} cores; "
            f"give 1 to {THREADS_PER_CORE * cores}"
        )
