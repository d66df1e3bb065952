"""Where the time of the deployed hrvit_b1 is spent, in PyTorch with packed weights and in OpenVINO.

``python tests/bench_engines.py [RESOLUTION]`` (224 if absent), one thread, batch 1, float32. Both run in turn, 20
times. For each kind of operator, a JSON line has the medians over runs, ``packed_ms`` and ``openvino_ms``, and their
ratio. They are sums over the operators of that kind by the runtime's own profiler, which adds time to every operator:
the total is above the latency of a race. About 2 minutes; needs the extra ``latency``.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from hrvit_lab.config import PRESETS
from hrvit_lab.export.graph import exported_program
from hrvit_lab.export.request import Request
from hrvit_lab.latency.models import randomize_norms
from hrvit_lab.network.build import create_model
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.pack import pack

RUNS = 20
LINEAR, DENSE, DEPTHWISE = "linears", "dense convolutions", "depthwise convolutions"
ATTENTION, NORM, REST = "attention products", "LayerNorm", "sums, activations, copies, resizing"

PACKED = {
    "mkldnn::_linear_pointwise": LINEAR, "aten::addmm": LINEAR, "aten::mm": LINEAR,
    "aten::_scaled_dot_product_flash_attention_for_cpu": ATTENTION, "aten::baddbmm": ATTENTION, "aten::bmm": ATTENTION,
    "aten::_softmax": ATTENTION, "aten::native_layer_norm": NORM,
}  # fmt: skip
"""Kinds of PyTorch's operators; all others are ``REST``."""

OPENVINO = {
    "FullyConnected": LINEAR, "Convolution": DENSE, "GroupConvolution": DEPTHWISE, "MatMul": ATTENTION, "MVN": NORM,
    "RMS": NORM, "ReduceMean": NORM,
}  # fmt: skip
"""Kinds of OpenVINO's nodes. It computes a LayerNorm by up to four of them."""
SUBGRAPHS = {"view": ATTENTION, "permute": ATTENTION, "baddbmm": ATTENTION, "Subtract": NORM, "Multiply": NORM}
"""Kinds of its fused subgraphs, by the start of their name. Attention has the name of the operator that rearranges its
output. All others are ``REST``."""


def packed_run(network: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Milliseconds of one run by kind."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        network(images)
    sums: defaultdict[str, float] = defaultdict(float)
    for event in found.key_averages(group_by_input_shape=True):
        kind = PACKED.get(event.key, REST)
        if event.key == "mkldnn::_convolution_pointwise":
            kind = DEPTHWISE if event.input_shapes[1][1] == 1 else DENSE
        sums[kind] += event.self_cpu_time_total / 1e3
    return sums


def openvino_run(inference: Any, images: torch.Tensor) -> dict[str, float]:
    """The same in OpenVINO."""
    inference.infer([images.numpy()])
    sums: defaultdict[str, float] = defaultdict(float)
    for node in inference.get_profiling_info():
        if node.node_type == "Subgraph":
            kind = next((kind for start, kind in SUBGRAPHS.items() if node.node_name.startswith(start)), REST)
        else:
            kind = OPENVINO.get(node.node_type, REST)
        sums[kind] += node.real_time.total_seconds() * 1e3
    return sums


def compiled(served: nn.Module, resolution: int) -> Any:
    """An OpenVINO request that profiles. Its graph is that of the exported file, whose operators have no names."""
    openvino = import_module("openvino")
    request = Request("openvino", (resolution, resolution))
    with torch.no_grad():
        graph = openvino.convert_model(exported_program(served, request))
    graph.reshape(list(request.open_shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1,
        "PERF_COUNT": True,
    }  # fmt: skip
    return openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()


def report(packed: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> None:
    """Print a line for each kind, and one for the sum."""
    for kind in (LINEAR, DENSE, DEPTHWISE, ATTENTION, NORM, REST):
        ours, theirs = (median(run.get(kind, 0.0) for run in runs) for runs in (packed, other))
        said: dict[str, Any] = {"kind": kind, "packed_ms": round(ours, 2), "openvino_ms": round(theirs, 2)}
        print(json.dumps(said | {"packed_by_openvino": round(ours / theirs, 2) if theirs else None}))
    ours, theirs = (median(sum(run.values()) for run in runs) for runs in (packed, other))
    print(json.dumps({"kind": "all", "packed_ms": round(ours, 1), "openvino_ms": round(theirs, 1)}))


def main() -> int:
    torch.set_num_threads(1)
    resolution = int(sys.argv[1]) if len(sys.argv) > 1 else 224
    network = create_model(PRESETS["hrvit_b1"]).eval()
    randomize_norms(network)
    served, images = deploy(network), torch.randn(1, 3, resolution, resolution)
    inference = compiled(served, resolution)
    packed = pack(served, images)
    ours, theirs = [], []
    with torch.inference_mode():
        for run in range(RUNS + 3):
            one, other = packed_run(packed, images), openvino_run(inference, images)
            if run >= 3:  # the first ones warm up
                ours.append(one)
                theirs.append(other)
    report(ours, theirs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
