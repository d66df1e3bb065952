"""Random numbers that depend on a seed alone, and leave those of others as they were."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Torch's random numbers start from ``seed`` inside, and go on outside as if nothing had been drawn.

    Two generators are seeded and put back: the CPU's, and that of ``device``. Those of other devices are not touched
    (``torch.manual_seed`` would seed them all).

    Args:
        device: where the model draws numbers; ``"cuda"`` is the current CUDA device.
    """
    device = torch.device(device)
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()  # before it there are no generators
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
