"""The module that is exported, and its graph."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hrvit_lab.export.request import Request
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.model import HRViT
from hrvit_lab.parts.attention import ATTENTION

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

MODULES = "nn_module_stack"
TRACES = ("stack_trace", MODULES, "source_fn_stack", "torch_fn", "from_node")
"""Metadata of a graph's nodes about the code that it was traced from. It is not needed to run the graph."""

TIMM_STEP = 32
"""Pixels of a free side are multiples of this in networks of timm: the stride of nearly all of them."""


class InNumberFormat(nn.Module):
    """A network that computes in another number format.

    Shape: as the network; images and outputs are float32.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.dtype = dtype

    def forward(self, images_BCHW: Tensor) -> Any:
        return tree_map(lambda output: output.float(), self.network(images_BCHW.to(self.dtype)))


def in_number_format(served: nn.Module, dtype: str) -> nn.Module:
    """The network with weights and arithmetic in ``dtype``; itself for float32."""
    return served if dtype == "float32" else InNumberFormat(copy.deepcopy(served), DTYPES[dtype])


def served_form(model: nn.Module) -> nn.Module:
    """A copy for inference: the deployed form of an HRViT, and any other network in evaluation mode."""
    return deploy(model) if isinstance(model, HRViT) else copy.deepcopy(model).eval().requires_grad_(False)


def side_step(model: nn.Module) -> int:
    """The number of pixels of which free sides are multiples. For an HRViT, the maps of all branches are then multiples
    of their windows: a remainder would need other operators, and a graph has no branches on sizes."""
    if not isinstance(model, HRViT):
        return TIMM_STEP
    config = model.config
    steps = [
        stride * (window if _has_window(attention) else 1)
        for stride, window, attention in zip(config.strides, config.window_sizes, config.attention, strict=True)
    ]
    return math.lcm(*steps)


def _has_window(attention: str) -> bool:
    """Whether the attention variant divides its map by the window size."""
    identity = ATTENTION[attention].identity
    return identity(64, 16, 2) != identity(64, 16, 3)


def exported_program(served: nn.Module, request: Request, *, named: bool = False) -> torch.export.ExportedProgram:
    """The graph of a network by ``torch.export``, with the free axes of the request.

    Metadata about the traced code is removed, because it contains folders of this machine.

    Args:
        named: keep the names of the modules that nodes are from.
    """
    module = in_number_format(served, request.dtype)
    program = torch.export.export(module, (request.example(),), dynamic_shapes=request.dynamic_shapes())
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            for key in TRACES:
                if not (named and key == MODULES):
                    node.meta.pop(key, None)
    return program
