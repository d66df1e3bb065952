"""The order of an epoch's images and the random numbers of one image, as stateless functions.

So a training draws the same random numbers with any number of workers and processes, and after any interruption.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_MASK = 2**64 - 1


def mixed(*numbers: int) -> int:
    """A 64-bit hash of the numbers in their order (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def epoch_order(num: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images: a permutation, int64 (num,)."""
    return torch.randperm(num, generator=torch.Generator().manual_seed(mixed(seed, epoch)))


def rank_indices(num: int, rank: int, world_size: int) -> range:
    """The images that a process evaluates; every image is evaluated by exactly one process.

    >>> [list(rank_indices(5, rank, 2)) for rank in range(2)]
    [[0, 2, 4], [1, 3]]
    """
    return range(rank, num, world_size)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """The seed, 64 bits, of one image's augmentation in one epoch."""
    return mixed(seed, epoch, index)


def seed_sample(seed: int, epoch: int, index: int) -> None:
    """Seed the generators of Python, numpy and torch (CPU) by (seed, epoch, index)."""
    number = sample_seed(seed, epoch, index)
    random.seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])
    torch.default_generator.manual_seed(number)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Context after which the three generators continue from their earlier state.

    Keeping the state takes ten times as long as seeding: a loader does it once a batch.
    """
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])


@contextmanager
def seeded_sample(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Context with random numbers of Python, numpy and torch (CPU) that depend on (seed, epoch, index).

    Afterwards the generators continue from their earlier state.
    """
    with kept_generators():
        seed_sample(seed, epoch, index)
        yield
