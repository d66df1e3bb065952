"""Peak memory of a pass: what has to fit, in MiB."""

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
    """Most memory that weights, buffers, input and everything computed from them hold at one moment.

    Inference: eval mode, nothing kept for gradients. Training: one forward and backward pass with its saved
    activations and gradients, without an optimiser's state.

    On the CPU the peak is that of live tensors, followed operator by operator: exact, the same on every run,
    and blind to other programs. (A process's resident set also holds the allocator's slack and torch itself;
    the profiler's allocator events add kernels' scratch space, such as reordered weights, which belongs to
    the CPU's library.) On CUDA it is that of torch's allocator, with the workspaces that kernels take from
    it; those that stay from an earlier pass are left out.

    Args:
        model: any module from (B, C, H, W) to tensors; it is left as it is.
        resolution: input height and width in pixels; one number means square.
        batch_size: images a pass.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``, of weights and input.
        memory_format: ``"contiguous"`` or ``"channels_last"``, of the input.
        training: measure a training pass in place of inference.
    Returns:
        Peak in MiB (2^20 bytes).
    Raises:
        ValueError: for a setting that does not exist or a device that is not present.
        OutOfDeviceMemory: if it does not fit.
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
    _pass(load, training)  # libraries keep a workspace from their first use: it is no part of the pass
    load.model.zero_grad(set_to_none=True)
    torch.cuda.synchronize(load.device)
    before = torch.cuda.memory_allocated(load.device)
    torch.cuda.reset_peak_memory_stats(load.device)
    _pass(load, training)
    torch.cuda.synchronize(load.device)
    return load.resident_bytes + torch.cuda.max_memory_allocated(load.device) - before


class LiveTensors(TorchDispatchMode):
    """Follows the bytes of all storages that operators return, from creation until the last reference goes.

    Views share a storage and count once. Attributes: ``live_bytes`` now, ``peak_bytes`` at most.
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
