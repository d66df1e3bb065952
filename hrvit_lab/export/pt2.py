"""``pt2``: a graph of ``torch.export``, which PyTorch runs without the code of the network."""

from importlib import import_module
from pathlib import Path

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from hrvit_lab.export.format import Runner
from hrvit_lab.export.graph import exported_program
from hrvit_lab.export.pt2_int8 import OPERATORS, quantized_program
from hrvit_lab.export.request import Request


def write(served: nn.Module, request: Request, path: Path) -> None:
    """Write the graph with its weights."""
    program = (quantized_program if request.dtype == "int8" else exported_program)(served, request)
    torch.export.save(program, path)


def load(path: Path, request: Request) -> Runner:
    """Load the file with PyTorch."""
    if request.dtype == "int8":
        import_module(OPERATORS)
    network = torch.export.load(path).module()
    return lambda images_BCHW: tree_leaves(network(images_BCHW))


def lines(request: Request, file: str) -> str:
    """Code that loads and runs the file."""
    operators = f"import {OPERATORS}  # operators of the file\n" if request.dtype == "int8" else ""
    return f"""\
import torch
{operators}
network = torch.export.load("{file}").module()
images = torch.zeros({request.shape})
output = network(images)
"""
