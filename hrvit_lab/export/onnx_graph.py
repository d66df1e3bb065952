"""``onnx``: a graph of ONNX operators, run by ONNX Runtime and many others."""

import ast
import hashlib
from collections.abc import Collection
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from hrvit_lab.export.format import Runner
from hrvit_lab.export.graph import exported_program
from hrvit_lab.export.int8 import quantize
from hrvit_lab.export.request import Request
from hrvit_lab.export.slim import slim

INPUT = "images"
SCOPES = "pkg.torch.onnx.name_scopes"
"""The key under which the exporter keeps the names of modules."""


def write(served: nn.Module, request: Request, path: Path) -> None:
    """Write the graph with its weights in one file; for int8, quantized."""
    if request.dtype == "int8":
        assert request.calibration is not None, "check_request has checked it"
        with TemporaryDirectory(dir=path.parent) as folder:
            source = Path(folder) / path.name
            write_float(served, replace(request, dtype="float32"), source)
            quantize(source, path, INPUT, request.calibration, request.batch_size)
    else:
        write_float(served, request, path)
    slim(path)


def write_float(served: nn.Module, request: Request, path: Path, *, named: bool = False) -> None:
    """Write the graph in float32, float16 or bfloat16.

    Args:
        named: nodes also have the names of the modules that they are from (`modules_of_nodes`).
    """
    program = exported_program(served, request, named=named)
    torch.onnx.export(program, (), path, dynamo=True, verbose=False, external_data=False, input_names=[INPUT])


def modules_of_nodes(path: Path, operators: Collection[str]) -> dict[str, str]:
    """The innermost module of every node of these operators in a file with names, in the order of the graph."""
    found = {}
    for node in import_module("onnx").load(path, load_external_data=False).graph.node:
        if node.op_type in operators:
            about = {entry.key: entry.value for entry in node.metadata_props}
            scopes = ast.literal_eval(about.get(SCOPES, "[]"))
            found[node.name] = scopes[-2] if len(scopes) > 1 else ""  # the last one is the operator
    return found


def graph_digest(path: Path) -> str:
    """16 hexadecimal digits of the nodes of a file: operators, their settings and connections, but no weights."""
    graph = import_module("onnx").load(path, load_external_data=False).graph
    found = hashlib.sha256()
    for node in graph.node:
        del node.metadata_props[:]  # they have lines of the source
        found.update(node.SerializeToString(deterministic=True))
    return found.hexdigest()[:16]


def load(path: Path, request: Request) -> Runner:
    """Load the file with ONNX Runtime, on the CPU, with as many threads as torch has."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images_BCHW: [torch.from_numpy(output) for output in session.run(None, {INPUT: images_BCHW.numpy()})]


def lines(request: Request, file: str) -> str:
    """Code that loads and runs the file."""
    return f"""\
import numpy
import onnxruntime

network = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
images = numpy.zeros({request.shape}, numpy.float32)
output = network.run(None, {{"{INPUT}": images}})[0]
"""
