"""``openvino``: a graph in OpenVINO's own format, two files with one name."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hrvit_lab.export.format import Runner
from hrvit_lab.export.graph import exported_program
from hrvit_lab.export.openvino_int8 import quantized
from hrvit_lab.export.request import Request
from hrvit_lab.export.slim_ir import share_constants, shorten

HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
"""The number format of the arithmetic (in int8: of what is not quantized) is a setting at loading. Without it, OpenVINO
takes the processor's fastest."""


def write(served: nn.Module, request: Request, path: Path) -> None:
    """Write the graph (``.xml``) and its weights (``.bin``); the weights are float32, or float16 if that was asked."""
    openvino = import_module("openvino")
    converted = openvino.convert_model(exported_program(served, replace(request, dtype="float32")))
    converted.reshape(list(request.open_shape))  # the converter forgets which axes are fixed
    if request.dtype == "int8":
        assert request.calibration is not None, "check_request has checked it"
        converted = quantized(converted, request.calibration, request.batch_size)
    share_constants(converted)
    openvino.save_model(converted, path, compress_to_fp16=request.dtype == "float16")
    shorten(path)


def load(path: Path, request: Request) -> Runner:
    """Load and compile the files with OpenVINO, on the CPU, with as many threads as torch has."""
    openvino = import_module("openvino")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": HINTS[request.dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    inference: Any = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        inference.infer([images_BCHW.numpy()], share_inputs=True)
        return [torch.from_numpy(tensor.data) for tensor in inference.output_tensors]

    return run


def lines(request: Request, file: str) -> str:
    """Code that loads and runs the files."""
    return f"""\
import numpy
import openvino

network = openvino.Core().compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "{HINTS[request.dtype]}"}})
images = numpy.zeros({request.shape}, numpy.float32)
output = network([images])[0]
"""
