"""Back ends: each turns a workload into a function that runs it.

To add one, write a function here and add a line to ``BACKENDS``.
"""

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hrvit_lab.config.plan import plan
from hrvit_lab.errors import ConfigError
from hrvit_lab.export.pt2_int8 import PACKAGES as QUANTIZER
from hrvit_lab.latency.aot import compiled_ahead, in_int8
from hrvit_lab.latency.engines import run_file
from hrvit_lab.latency.workload import Workload
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.pack import pack, refusal
from hrvit_lab.network.places import places
from hrvit_lab.network.quiet import quiet


class Refused(RuntimeError):
    """Raised by a back end that cannot run here; the message gives the reason."""


@dataclass(frozen=True)
class Prepared:
    """A workload, ready to be called.

    Attributes:
        run: one forward pass on the workload's images; returns the output, which the next call may overwrite.
        compile_seconds: time for compiling, capturing or exporting; None for back ends that do none of these.
    """

    run: Callable[[], Any]
    compile_seconds: float | None = None


@dataclass(frozen=True)
class Backend:
    """One line of ``BACKENDS``.

    Attributes:
        label: display name.
        prepare: turns a workload into a callable; compiles by running it once, in the mode that is timed.
        devices: supported device types, ``"cpu"`` and ``"cuda"``.
        dtypes: supported number formats.
        trains: whether gradients flow through it.
        packages: required packages that are not dependencies of this project.
        context: context manager that is active while it prepares and runs.
        arithmetic: number format of products, if it is not that of weights and input.
        seconds: approximate upper bound on the time to prepare and check a network of b1's size on two cores.
    """

    label: str
    prepare: Callable[[Workload], Prepared]
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    trains: bool = False
    packages: tuple[str, ...] = ()
    context: Callable[[], AbstractContextManager[None]] = nullcontext
    arithmetic: str | None = None
    seconds: float = 10.0

    @property
    def missing(self) -> list[str]:
        """Required packages that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]

    def refusal(self, device: str, dtype: str, training: bool) -> str | None:
        """The reason why this combination is not supported, or None."""
        kind = device.partition(":")[0]
        if kind not in self.devices:
            return f"{self.label} runs on {' and '.join(self.devices)} only"
        if dtype not in self.dtypes:
            return f"{self.label} supports {' and '.join(self.dtypes)} only"
        if training and not self.trains:
            return f"{self.label} supports inference only"
        return None


def eager(load: Workload) -> Prepared:
    """Operator by operator, as PyTorch runs it."""
    return Prepared(lambda: load.model(load.images_BCHW))


def compiled(load: Workload) -> Prepared:
    """``torch.compile`` of each region separately; blocks of equal shape share their code.

    Raises:
        Refused: on the CPU without a C++ compiler.
    """
    return _compiled(load, regions(load.model))


def compiled_whole(load: Workload) -> Prepared:
    """``torch.compile`` of the whole network as one graph.

    Raises:
        Refused: on the CPU without a C++ compiler.
    """
    return _compiled(load, [load.model])


def _compiled(load: Workload, parts: Sequence[nn.Module]) -> Prepared:
    _need_cpp_compiler(load.device)
    began = time.perf_counter()
    for part in parts:
        part.compile(dynamic=False)

    def run() -> Any:
        return load.model(load.images_BCHW)

    with quiet():
        run()
    if load.device.type == "cuda":
        torch.cuda.synchronize(load.device)
    return Prepared(run, time.perf_counter() - began)


def aot_inductor(load: Workload) -> Prepared:
    """The whole graph, compiled ahead of time to a library that is kept for later runs (`aot`).

    Raises:
        Refused: on the CPU without a C++ compiler.
    """
    _need_cpp_compiler(load.device)
    return Prepared(*compiled_ahead(load))


def aot_inductor_int8(load: Workload) -> Prepared:
    """The same, quantized to int8 by torchao before.

    Raises:
        Refused: without a C++ compiler.
    """
    _need_cpp_compiler(load.device)
    return Prepared(*compiled_ahead(load, in_int8))


def packed(load: Workload) -> Prepared:
    """The deployed model with weights packed by oneDNN for this input size, and fused activations.

    Raises:
        Refused: if the network is not an HRViT, or oneDNN cannot pack it.
    """
    if not isinstance(load.model, HRViT):
        raise Refused("packed weights support HRViTs only")
    if reason := refusal(load.images_BCHW.dtype):
        raise Refused(reason)
    began = time.perf_counter()
    model = pack(deploy(load.model), load.images_BCHW)
    return Prepared(lambda: model(load.images_BCHW), time.perf_counter() - began)


def cuda_graph(load: Workload) -> Prepared:
    """The kernels of eager mode, captured once and replayed as one CUDA graph."""
    return _captured(lambda: load.model(load.images_BCHW), load.device)


def compiled_cuda_graph(load: Workload) -> Prepared:
    """Compiled region by region, then captured as one CUDA graph."""
    inner = compiled(load)
    outer = _captured(inner.run, load.device)
    return Prepared(outer.run, (inner.compile_seconds or 0) + (outer.compile_seconds or 0))


def onnxruntime(load: Workload) -> Prepared:
    """Exported to ONNX, run by ONNX Runtime on the CPU with as many threads as torch has."""
    return Prepared(*run_file(load, "onnx", "float32"))


def openvino(load: Workload) -> Prepared:
    """Exported to OpenVINO's format, run by OpenVINO on the CPU with as many threads as torch has.

    Raises:
        Refused: in bfloat16, if OpenVINO would compute in float32 on this processor.
    """
    dtype = str(load.images_BCHW.dtype).removeprefix("torch.")
    if dtype == "bfloat16" and not openvino_has_bfloat16():
        raise Refused("OpenVINO has no bfloat16 on this processor, and would compute in float32; use float32")
    return Prepared(*run_file(load, "openvino", dtype))


def openvino_has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor."""
    core: Any = importlib.import_module("openvino").Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def onnxruntime_int8(load: Workload) -> Prepared:
    """Quantized to int8 and run by ONNX Runtime."""
    return Prepared(*run_file(load, "onnx", "int8"))


def openvino_int8(load: Workload) -> Prepared:
    """Quantized to int8 by NNCF and run by OpenVINO."""
    return Prepared(*run_file(load, "openvino", "int8"))


def _need_cpp_compiler(device: torch.device) -> None:
    if device.type == "cpu" and not has_cpp_compiler():
        raise Refused("torch.compile on a CPU needs a C++ compiler; install g++, or set the environment variable CXX")


def has_cpp_compiler() -> bool:
    """Whether ``torch.compile`` finds a C++ compiler."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True


@contextmanager
def compiling() -> Iterator[None]:
    """Start with empty compiler caches, so that compile times are those of a first run. Raise the recompile limits, so
    that one block can be compiled for many shapes; reaching them is an error, not a silent fallback to eager."""
    import torch._dynamo  # imported here: it takes a second
    from torch._inductor.utils import fresh_cache

    config = torch._dynamo.config
    limits: dict[str, Any] = {
        "recompile_limit": max(config.recompile_limit, 1024),
        "accumulated_recompile_limit": max(config.accumulated_recompile_limit, 8192),
        "fail_on_recompile_limit_hit": True,
    }
    torch._dynamo.reset()
    with config.patch(**limits), fresh_cache():
        yield


ONNX = ("onnx", "onnxscript", "onnxruntime")
"""Packages that export to ONNX and run it."""

BACKENDS: dict[str, Backend] = {
    "eager": Backend("eager", eager, trains=True),
    "packed": Backend("oneDNN with packed weights", packed, ("cpu",), ("float32", "bfloat16")),
    "compile": Backend("torch.compile per block", compiled, trains=True, context=compiling, seconds=120.0),
    "compile_whole": Backend(
        "torch.compile of the whole graph", compiled_whole, trains=True, context=compiling, seconds=300.0
    ),
    "aot_inductor": Backend("AOTInductor of the whole graph", aot_inductor, seconds=300.0),
    "cuda_graph": Backend("CUDA graph", cuda_graph, devices=("cuda",)),
    "compile_cuda_graph": Backend(
        "torch.compile per block in a CUDA graph", compiled_cuda_graph, devices=("cuda",), context=compiling,
        seconds=120.0,
    ),
    "onnxruntime": Backend("ONNX Runtime", onnxruntime, ("cpu",), ("float32",), packages=ONNX, seconds=90.0),
    "openvino": Backend("OpenVINO", openvino, ("cpu",), ("float32", "bfloat16"), packages=("openvino",), seconds=60.0),
    "aot_inductor_int8": Backend(
        "AOTInductor in int8", aot_inductor_int8, ("cpu",), ("float32",), packages=QUANTIZER, arithmetic="int8",
        seconds=600.0,
    ),
    "onnxruntime_int8": Backend(
        "ONNX Runtime in int8", onnxruntime_int8, ("cpu",), ("float32",), packages=ONNX, arithmetic="int8",
        seconds=150.0,
    ),
    "openvino_int8": Backend(
        "OpenVINO in int8", openvino_int8, ("cpu",), ("float32",), packages=("openvino", "nncf"), arithmetic="int8",
        seconds=150.0,
    ),
}  # fmt: skip
"""All back ends by the name that ``--backend`` takes."""


def find_backend(name: str) -> Backend:
    """The back end called ``name``.

    Raises:
        ConfigError: if there is none, or a required package is not installed.
    """
    if name not in BACKENDS:
        raise ConfigError(f"backend {name!r} is unknown; use one of {', '.join(BACKENDS)}")
    backend = BACKENDS[name]
    if missing := backend.missing:
        raise ConfigError(f"backend {name} needs {', '.join(missing)}; run: pip install {' '.join(missing)}")
    return backend


def regions(model: nn.Module) -> list[nn.Module]:
    """Modules that are compiled separately: an HRViT's stem, fusions, patch embeddings, blocks and head; for other
    networks, the whole model."""
    if not isinstance(model, HRViT):
        return [model]
    return [model.get_submodule(place.name) for place in places(plan(model.config)) if place.part.kind != "norm"]


def _captured(run: Callable[[], Any], device: torch.device) -> Prepared:
    """A CUDA graph of ``run``, which must read and write the same memory each time."""
    began = time.perf_counter()
    with torch.cuda.device(device):
        side_stream = torch.cuda.Stream(device)
        side_stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side_stream):
            for _ in range(3):  # libraries choose kernels and allocate workspaces, which must not be captured
                run()
        torch.cuda.current_stream(device).wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = run()
        torch.cuda.synchronize(device)

    def replay() -> Any:
        graph.replay()
        return output

    return Prepared(replay, time.perf_counter() - began)
