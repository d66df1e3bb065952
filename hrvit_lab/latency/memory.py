"""Peak memory of a forward or training pass, in MiB."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from hrvit_lab.latency.workload import Workload, memory_errors_named, prepare

MIB = 2**20


def measure_peak_memory(
    model: nn.Module,
    resolution: int | tuple[int, int] = 224,
    *,
    batch_size: int = 1,
    device: str = "cpu",
    dtype: str = "float32",
    memory_format: str = "contiguous",
    training: bool = False,
) -> float:
    """Largest memory that weights, buffers, input and all tensors computed from them occupy at one time.

    Inference: eval mode, without saved activations. Training: one forward and backward pass with saved activations and
    gradients, without optimizer state.

    On the CPU, the peak counts live tensors, tracked operator by operator. It is exact, reproducible and independent of
    other programs. It excludes the allocator's overhead, torch itself, and scratch space of kernels. On CUDA it is the
    peak of torch's allocator, including workspaces that kernels allocate from it during the pass, excluding those that
    remain from an earlier pass.

    Args:
        model: any module from (B, C, H, W) to tensors; it is not changed.
        resolution: input height and width in pixels; one number means square.
        batch_size: images per pass.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``, of weights and input.
        memory_format: ``"contiguous"`` or ``"channels_last"``, of the input.
        training: measure a training pass instead of inference.
    Returns:
        Peak in MiB (2^20 bytes).
    Raises:
        ConfigError: for an unknown setting or a device that is not available.
        OutOfDeviceMemory: if it does not fit into memory.
    """
    load = prepare(model, resolution, batch_size=batch_size, device=device, dtype=dtype, memory_format=memory_format)
    load.model.train(training)
    peak_bytes = _cuda_peak if load.device.type == "cuda" else _live_tensor_peak
    with memory_errors_named(load.name):
        return peak_bytes(load, training) / MIB


def _pass(load: Workload, training: bool) -> None:
    with torch.inference_mode(not training):
        output = load.model(load.images_BCHW)
        if training:
            torch.stack([tensor.sum() for tensor in tree_iter(output)]).sum().backward()


def _live_tensor_peak(load: Workload, training: bool) -> int:
    tracker = LiveTensors(load.resident_storages())
    with tracker:
        _pass(load, training)
    return tracker.peak_bytes


def _cuda_peak(load: Workload, training: bool) -> int:
    _pass(load, training)  # libraries allocate a workspace at first use, which does not belong to the pass
    load.model.zero_grad(set_to_none=True)
    torch.cuda.synchronize(load.device)
    before = torch.cuda.memory_allocated(load.device)
    torch.cuda.reset_peak_memory_stats(load.device)
    _pass(load, training)
    torch.cuda.synchronize(load.device)
    return load.resident_bytes + torch.cuda.max_memory_allocated(load.device) - before


class LiveTensors(TorchDispatchMode):
    """Tracks the storages that operators return, from creation until the last reference is dropped.

    Views share a storage and count once. Attributes: ``live_bytes`` is the present sum, ``peak_bytes`` its maximum.
    """

    def __init__(self, storages: list[torch.UntypedStorage]) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for storage in storages:
            self._follow(storage)

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def forget(_: object) -> None:
            self.live_bytes -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, forget)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_iter(output):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return output
