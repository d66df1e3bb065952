"""The back end ``aot_inductor``: the whole graph, compiled ahead of time to a library that is kept.

Compiling takes minutes, so a library is stored under a digest of all that it depends on: the graph, the weights (which
are constants in it), shape and number format of the input, versions, and the processor or GPU.
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hrvit_lab.environment import hardware, versions
from hrvit_lab.export.folder import unfinished
from hrvit_lab.export.pt2_int8 import quantized_program
from hrvit_lab.export.request import Request
from hrvit_lab.files import user_path
from hrvit_lab.latency.workload import Workload
from hrvit_lab.network.quiet import quiet

CACHE = "HRVIT_LAB_CACHE"
"""The environment variable with the folder of what is kept for later runs."""


def cache_root() -> Path:
    """The folder of what is kept: that of the variable ``HRVIT_LAB_CACHE``, or ``~/.cache/hrvit_lab``."""
    return user_path(os.environ.get(CACHE) or "~/.cache/hrvit_lab")


def cache_folder() -> Path:
    """The folder of the libraries."""
    return cache_root() / "aot_inductor"


def digest(program: torch.export.ExportedProgram, device: torch.device) -> str:
    """40 hex digits, equal for equal graphs with equal weights, versions, hardware and number of threads."""
    found = hashlib.sha256()
    found.update(program.graph_module.code.encode())
    found.update(repr([(node.op, node.name, str(node.meta.get("val"))) for node in program.graph.nodes]).encode())
    for name, tensor in sorted({**program.state_dict, **program.constants}.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    found.update(repr((sorted(versions().items()), hardware(str(device)), torch.get_num_threads())).encode())
    return found.hexdigest()[:40]


def exact(load: Workload) -> torch.export.ExportedProgram:
    """The graph of a workload."""
    return torch.export.export(load.model, (load.images_BCHW.clone(),))


def in_int8(load: Workload) -> torch.export.ExportedProgram:
    """The graph of a workload, quantized by torchao. The compiler makes int8 products of it."""
    batch_size, channels, height, width = load.images_BCHW.shape
    images_BCHW = load.images_BCHW.clone()
    request = Request("pt2", (height, width), batch_size, (), "int8", channels, calibration=images_BCHW)
    return quantized_program(load.model, request)


def compiled_ahead(
    load: Workload, graph: Callable[[Workload], torch.export.ExportedProgram] = exact
) -> tuple[Callable[[], Any], float]:
    """A function that runs the compiled workload, and the seconds that this took: few if the library was there.

    Args:
        graph: `exact` or `in_int8`.
    """
    from torch._inductor import aoti_load_package  # imported here: it takes a second

    began = time.perf_counter()
    with torch.inference_mode(False), torch.no_grad(), quiet():
        program = graph(load)
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{digest(program, load.device)}.pt2"
        if not path.exists():
            compile_to(path, program)
        try:
            runner = aoti_load_package(str(path))
        except RuntimeError:  # damaged, as after a crash of the machine
            path.unlink(missing_ok=True)
            compile_to(path, program)
            runner = aoti_load_package(str(path))
    return lambda: runner(load.images_BCHW), time.perf_counter() - began


def compile_to(path: Path, program: torch.export.ExportedProgram) -> None:
    """Compile to ``path``, which appears complete: two processes may compile the same graph at the same time. What
    killed processes left there is removed."""
    from torch._inductor import aoti_compile_and_package  # imported here: it takes a second

    with unfinished(path.parent) as folder:
        aoti_compile_and_package(program, package_path=str(folder / path.name), inductor_configs={"freezing": True})
        os.replace(folder / path.name, path)
