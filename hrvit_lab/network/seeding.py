"""Seed random numbers in a context without changing the generators' state outside it."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Context with torch's random numbers seeded; afterwards the generators continue from their earlier state.

    Two generators are seeded and restored: that of the CPU and that of ``device``. Other devices are not changed
    (``torch.manual_seed`` would seed them all).

    Args:
        device: on which the model draws random numbers; ``"cuda"`` is the current CUDA device.
    """
    device = torch.device(device)
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()  # creates the generators
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    elif device.type == "mps":
        generators.append(torch.mps._get_default_mps_generator())
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
