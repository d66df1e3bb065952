"""``onnx``: a graph of ONNX operators, run by ONNX Runtime and many others."""

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

INPUT = "images"


def write(served: nn.Module, request: Request, path: Path) -> None:
    """Write the graph with its weights in one file; for int8, quantized."""
    if request.dtype == "int8":
        assert request.calibration is not None, "check_request has checked it"
        with TemporaryDirectory(dir=path.parent) as folder:
            source = Path(folder) / path.name
            write(served, replace(request, dtype="float32"), source)
            quantize(source, path, INPUT, request.calibration, request.batch_size)
        return
    program = exported_program(served, request)
    torch.onnx.export(program, (), path, dynamo=True, verbose=False, external_data=False, input_names=[INPUT])


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
