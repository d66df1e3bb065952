"""The processes of one training: their number, the rank of this process, and collective operations.

``torchrun`` starts the processes and sets the environment variables that are read here. Without it, there is one.
"""

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hrvit_lab.errors import ConfigError

T = TypeVar("T")

START_TIMEOUT_S = 600.0
POLL_S = 0.01


class OtherProcessFailed(ConfigError):
    """Another process of this training could not go on, and says why."""

    def __init__(self) -> None:
        super().__init__("another process could not read its images, so this one ends too; see the message of that one")


@dataclass(frozen=True)
class Ranks:
    """Attributes:
    rank: number of this process, from 0. Rank 0 writes the files.
    size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def summed(self, counts: Tensor) -> Tensor:
        """The sum of an int64 tensor over all processes, which is exact in any order."""
        assert counts.dtype == torch.int64
        total = counts.clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        total = torch.tensor(int(flag), device=device)
        dist.all_reduce(total)
        return bool(total.item())

    def broadcast(self, text: str | None) -> str:
        """Broadcast the first process's object to all processes."""
        said = [text]
        if self.size > 1:
            dist.broadcast_object_list(said)
        assert said[0] is not None
        return said[0]

    def gathered(self, entries: Sequence[T]) -> list[T]:
        """The concatenated entries of all processes, in every process."""
        if self.size == 1:
            return list(entries)
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, list(entries))
        return [entry for part in parts for entry in part]

    def is_lost(self, error: BaseException) -> bool:
        """Whether an error of a collective operation says that another process has ended."""
        return self.size > 1 and is_lost(error)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def is_lost(error: BaseException) -> bool:
    """Whether an error of a collective operation says that another process has ended."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text)


def name_of_start(store: dist.Store, rank: int, size: int, timeout_s: float = START_TIMEOUT_S) -> str:
    """A name for this start of the processes: the same in all of them, and another one after each restart.

    The store of ``torchrun`` outlives a restart. Without a name in front of its keys, the new processes would try the
    addresses of the old ones. Numbers of restarts would not do, because each node counts its own.

    Raises:
        RuntimeError: if a process does not start in time.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"started/{rank}", own)
        name = str(store.get(f"answer/{own}").decode())  # waits for it
        store.set(f"known/{name}/{rank}", "")
        return name
    waiting, until = set(range(1, size)), time.monotonic() + timeout_s
    while waiting:
        for other in sorted(waiting):
            if store.check([f"known/{own}/{other}"]):
                waiting.remove(other)
            elif store.check([f"started/{other}"]):  # possibly of a process that is gone, which does not matter
                store.set(f"answer/{store.get(f'started/{other}').decode()}", own)
        if time.monotonic() > until:
            raise RuntimeError(f"process {min(waiting)} of {size} did not start within {timeout_s:g} s")
        time.sleep(POLL_S)
    return own


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Context: join the process group of ``torchrun`` (NCCL on CUDA devices, otherwise gloo) and leave it at exit.

    Sets each process's current CUDA device to its local rank.

    Raises:
        ConfigError: if the variables of ``torchrun`` are not numbers.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not os.environ.get("WORLD_SIZE"):
        yield Ranks()
        return
    try:
        rank, size, local = (int(os.environ.get(name, "0")) for name in names)
    except ValueError:
        given = ", ".join(f"{name}={os.environ.get(name)!r}" for name in names)
        raise ConfigError(f"{given}: must be integers; start the training with torchrun") from None
    if size == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(local)
    store, rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(name_of_start(store, rank, size), store)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    try:
        yield Ranks(rank, size)
    finally:
        dist.destroy_process_group()
