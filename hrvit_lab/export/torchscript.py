"""``torchscript``: a trace, which PyTorch and its C++ library run without Python."""

from pathlib import Path

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from hrvit_lab.export.format import Runner
from hrvit_lab.export.graph import exported_program, in_number_format
from hrvit_lab.export.request import Request


def write(served: nn.Module, request: Request, path: Path) -> None:
    """Trace the network on zeros, and write the trace with its weights.

    With a fixed shape, the graph of ``torch.export`` is traced: while a module is traced, sizes are no numbers, so that
    it would not take the operators that are fastest for them.
    """
    if request.free:
        module = in_number_format(served, request.dtype).eval()
    else:
        module = exported_program(served, request).module(check_guards=False)
        module._forward_pre_hooks.clear()  # they compare sizes, which are no numbers here either
    traced = torch.jit.trace(module, request.example(), check_trace=False)
    torch.jit.freeze(traced.eval()).save(str(path))


def load(path: Path, request: Request) -> Runner:
    """Load the file with PyTorch."""
    network = torch.jit.load(str(path))
    return lambda images_BCHW: tree_leaves(network(images_BCHW))


def lines(request: Request, file: str) -> str:
    """Code that loads and runs the file."""
    return f"""\
import torch

network = torch.jit.load("{file}")
images = torch.zeros({request.shape})
output = network(images)
"""
