"""int8 for ``pt2``: post-training static quantization of the graph by torchao's quantizer for x86 processors.

Weights of convolutions and linears are int8 with one scale per output channel; their inputs have 256 levels, with one
scale per tensor, from a histogram of the values on calibration images. The graph holds pairs of quantize and dequantize
operators, which a compiler can fuse into int8 products. Without one, PyTorch rounds and multiplies in float32.
"""

from dataclasses import replace
from importlib import import_module

import torch
from torch import nn

from hrvit_lab.export.graph import exported_program
from hrvit_lab.export.int8 import whole_batches
from hrvit_lab.export.request import Request

PACKAGES = ("torchao",)
OPERATORS = "torch.ao.quantization.fx._decomposed"
"""The module of PyTorch that has the operators of the graph."""


def quantized_program(served: nn.Module, request: Request) -> torch.export.ExportedProgram:
    """The graph of a network with int8 weights, calibrated on the request's images.

    Raises:
        ConfigError: if there are fewer images than one batch.
    """
    settings = import_module("torch._inductor.config")
    with settings.patch(pre_grad_custom_pass=settings.pre_grad_custom_pass):  # torchao sets it for the whole process
        pt2e = import_module("torchao.quantization.pt2e.quantize_pt2e")
        x86 = import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    assert request.calibration is not None, "check_request has checked it"
    # The quantizer needs the metadata that `exported_program` removes.
    traced = torch.export.export(served, (request.example(),), dynamic_shapes=request.dynamic_shapes())
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    observed = pt2e.prepare_pt2e(traced.module(check_guards=False), quantizer)
    for batch_BCHW in whole_batches(request.calibration, request.batch_size):
        observed(batch_BCHW)
    rounded = pt2e.convert_pt2e(observed)
    remove_unused(rounded)
    return exported_program(rounded, replace(request, dtype="float32"))


def remove_unused(module: torch.fx.GraphModule) -> None:
    """Remove parameters and buffers that the graph does not read: weights in float32."""
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    held = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, _ in held:
        if name not in used:
            owner, _, own = name.rpartition(".")
            delattr(module.get_submodule(owner), own)
