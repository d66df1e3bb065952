"""The workload of a measurement: a copy of the model and one random batch on a device.

The caller's model is not changed: device, dtype, memory format and eval mode are those of the copy.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hrvit_lab.devices import find_device
from hrvit_lab.environment import cpu_model
from hrvit_lab.errors import ConfigError, is_out_of_memory
from hrvit_lab.latency.timing import garbage_collector_paused, intra_op_threads
from hrvit_lab.network.inputs import input_channels

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# "contiguous" keeps the memory format of the model's weights, and of the input, which is created contiguous.
MEMORY_FORMATS = {"contiguous": torch.preserve_format, "channels_last": torch.channels_last}


class OutOfDeviceMemory(MemoryError):
    """The workload does not fit into memory. It is recorded as a result; the batch size is never reduced."""


@dataclass(frozen=True)
class Workload:
    """A model copy and its input, ready to run.

    Attributes:
        model: copy of the caller's model on ``device``, in eval mode.
        images_BCHW: (B, C, H, W) standard normal noise; with zeros, some kernels would be faster.
        device: device of both.
        name: the settings, for messages.
    """

    model: nn.Module
    images_BCHW: Tensor  # noqa: N815
    device: torch.device
    name: str

    @property
    def resident_bytes(self) -> int:
        """Bytes of weights, buffers and input: allocated before the first operator runs."""
        return sum(storage.nbytes() for storage in self.resident_storages())

    def resident_storages(self) -> list[torch.UntypedStorage]:
        """Storages of weights, buffers and input, shared ones once."""
        tensors = [*self.model.parameters(), *self.model.buffers(), self.images_BCHW]
        storages = [tensor.untyped_storage() for tensor in tensors]
        return list({storage._cdata: storage for storage in storages}.values())


def prepare(
    model: nn.Module,
    resolution: int | tuple[int, int],
    *,
    batch_size: int,
    device: str,
    dtype: str = "float32",
    memory_format: str = "contiguous",
    seed: int = 0,
) -> Workload:
    """Copy ``model`` to ``device`` and make a seeded random batch for it.

    Args:
        resolution: input height and width in pixels; one number means square.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        dtype: a key of ``DTYPES``, for weights and input.
        memory_format: ``"contiguous"`` for a contiguous input and unchanged weights, or ``"channels_last"`` for both.
    Raises:
        ConfigError: for an unknown setting or a device that is not available.
        OutOfDeviceMemory: if weights and input alone do not fit into memory.
    """
    for field, value, known in (("dtype", dtype, DTYPES), ("memory_format", memory_format, MEMORY_FORMATS)):
        if value not in known:
            raise ConfigError(f"{field} {value!r} is unknown; use one of {', '.join(known)}")
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; use at least 1")
    target = find_timed_device(device)
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    name = f"batch {batch_size} at {height}×{width}, {dtype}, {memory_format}, on {device_name(target)}"
    with memory_errors_named(name):
        ours = copy.deepcopy(model).to(target, DTYPES[dtype]).to(memory_format=MEMORY_FORMATS[memory_format])
        images_BCHW = noise(batch_size, input_channels(model), height, width, seed)
        images_BCHW = images_BCHW.to(target, DTYPES[dtype]).to(memory_format=MEMORY_FORMATS[memory_format])
    return Workload(ours.eval(), images_BCHW, target, name)


def noise(batch_size: int, channels: int, height: int, width: int, seed: int) -> Tensor:
    """(B, C, H, W) standard normal numbers in float32, the same on every device."""
    return torch.randn(batch_size, channels, height, width, generator=torch.Generator().manual_seed(seed))


def find_timed_device(name: str) -> torch.device:
    """The torch device called ``name``, if its latency can be measured.

    Raises:
        ConfigError: if there is none, or it is an Apple GPU, which is supported for training only.
    """
    if name == "mps":
        raise ConfigError("device 'mps' is supported for training only; use cpu, cuda or cuda:N")
    return find_device(name)


def device_name(device: torch.device) -> str:
    """Product name of a device, e.g. ``"NVIDIA H100 80GB HBM3"``; for the CPU, that of the processor."""
    return cpu_model() if device.type == "cpu" else torch.cuda.get_device_name(device)


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Compute float32 matrix products and convolutions in IEEE float32, without TF32 or bfloat16; restores all settings
    at exit.

    torch has two sets of settings: the older ``set_float32_matmul_precision`` and ``cudnn.allow_tf32``, and
    ``fp32_precision`` for each library and operator. Kernels raise if the two disagree, so both are set.
    """
    before = {place: _take_precision(*place) for place in _PRECISIONS}  # now unset, so that nothing is inherited
    matmul_before = torch.get_float32_matmul_precision()
    cudnn_before = _cudnn_allows_tf32()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for place in _PRECISIONS:
        torch._C._set_fp32_precision_setter(*place, "ieee")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul_before)
        torch.backends.cudnn.allow_tf32 = cudnn_before
        for place, precision in before.items():
            torch._C._set_fp32_precision_setter(*place, precision)


_PRECISIONS = (
    ("generic", "all"), ("cuda", "all"), ("mkldnn", "all"),
    *((library, operator) for library in ("cuda", "mkldnn") for operator in ("matmul", "conv", "rnn")),
)  # fmt: skip
"""The libraries and operators with an ``fp32_precision``; the value ``"none"`` is inherited from earlier ones."""


def _take_precision(library: str, operator: str) -> str:
    """Return the precision of an operator, and unset it."""
    precision: str = torch._C._get_fp32_precision_getter(library, operator)
    torch._C._set_fp32_precision_setter(library, operator, "none")
    return precision


def _cudnn_allows_tf32() -> bool:
    """The older setting. torch raises if it is on while no ``fp32_precision`` is set."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return True


@contextmanager
def timed_inference(name: str, threads: int | None) -> Iterator[int]:
    """The state in which inference is timed: IEEE float32, no gradients, no garbage collection; restored at exit.

    Args:
        name: of the workload, for errors.
        threads: CPU threads; None: torch's own choice.
    Yields:
        The number of threads.
    Raises:
        ConfigError: for a number of threads that this machine does not support.
        OutOfDeviceMemory: if the workload does not fit into memory.
    """
    with (
        memory_errors_named(name),
        intra_op_threads(threads) as used,
        ieee_float32(),
        torch.inference_mode(),
        garbage_collector_paused(),
    ):
        yield used


@contextmanager
def memory_errors_named(name: str) -> Iterator[None]:
    """Raise any allocator's out-of-memory error as ``OutOfDeviceMemory`` with the name of the workload."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfDeviceMemory(f"out of memory: {name}") from None
        raise
