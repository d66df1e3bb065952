"""Graphs of whole networks: trace, FX, torch.export, ONNX and OpenVINO, of the plain and the deployed form.

Sizes are dynamic if the sides of the map are multiples of the window. Otherwise, the remainder decides which operators
run, and a graph has no branches on sizes. An FX graph calls the functions with such branches, so it accepts any size.
"""

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from test_variants import randomised
from torch import Tensor, nn

from hrvit_lab import HRViTConfig, create_model
from hrvit_lab.config import ConfigError
from hrvit_lab.network.build import build
from hrvit_lab.network.deploy import deploy

SMALL: dict[str, Any] = {
    "depths": ((1, 1),), "topology": "pyramid", "widths": (8, 16), "stem_width": 8, "head_dims": 4,
    "mlp_ratios": 2, "num_classes": 5, "parallel_conv": False, "attn_activation": False, "attn_batch_norm": False,
    "shortcut": "none",
}  # fmt: skip
NETWORKS: dict[str, HRViTConfig] = {
    "hrvit": HRViTConfig(
        depths=((1, 1), (1, 1)), widths=(8, 16), stem_width=8, head_dims=4, window_sizes=2, mlp_ratios=2,
        num_classes=5, head_widths=2, head_features=8,
    ),
    "mit": HRViTConfig(
        **SMALL, attention="spatial_reduction", window_sizes=(2, 1), ffn="mixffn", patch_embed="dense", stem="conv7",
        head="pool",
    ),
    "cswin": HRViTConfig(
        **SMALL, attention="cswin", window_sizes=(1, 2), ffn="mlp", patch_embed="dense", stem="conv7_cswin",
        head="norm_pool",
    ),
}  # fmt: skip
FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {"plain": lambda model: model, "deployed": deploy}
FREE: dict[str, dict[int, Any] | None] = {
    "fixed": None,
    "batch": {0: torch.export.Dim("batch", min=1, max=64)},
    "size": {
        0: torch.export.Dim("batch", min=1, max=64),
        2: 32 * torch.export.Dim("rows", min=1, max=16),
        3: 32 * torch.export.Dim("columns", min=1, max=16),
    },
}
SHAPES = {"fixed": [(2, 3, 64, 96)], "batch": [(2, 3, 64, 96), (5, 3, 64, 96), (1, 3, 64, 96)],
          "size": [(2, 3, 64, 96), (3, 3, 96, 64), (1, 3, 128, 160)]}  # fmt: skip

every_network = pytest.mark.parametrize("name", NETWORKS)
every_form = pytest.mark.parametrize("form", FORMS)
# Symbolic sides take up to a minute a network, ONNX and OpenVINO 5 to 20 seconds. A default run exports each network
# with a free batch (HRViT deployed), and one of them to ONNX and OpenVINO.
slow = pytest.mark.slow
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def made(name: str, form: str) -> nn.Module:
    return FORMS[form](randomised(build(NETWORKS[name])))


def check(run: Callable[[Tensor], Tensor], model: nn.Module, free: str, atol: float = 1e-5) -> None:
    """Compare the graph with the network at every dynamic shape."""
    for shape in SHAPES[free]:
        image = torch.randn(shape)
        with torch.no_grad():
            expected = model(image)
            found = run(image)
        assert expected.abs().max() > 0.01 and found.shape == expected.shape
        torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


@every_network
@every_form
@pytest.mark.parametrize("grad", [True, pytest.param(False, marks=slow)])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit:FutureWarning")
def test_a_trace_passes_its_own_check_and_accepts_any_batch_size(name: str, form: str, grad: bool) -> None:
    """The check runs without gradients, so it fails if the graph depends on gradient mode."""
    model = made(name, form)
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(model, torch.randn(SHAPES["batch"][0]))
    check(traced, model, "batch")


@every_network
@every_form
def test_an_fx_graph_accepts_any_size(name: str, form: str) -> None:
    model = made(name, form)
    graph = torch.fx.symbolic_trace(model)
    check(graph, model, "size")
    image = torch.randn(1, 3, 45, 67)  # the windows leave remainders
    with torch.no_grad():
        torch.testing.assert_close(graph(image), model(image), atol=1e-5, rtol=1e-4)


QUICK_EXPORTS = [
    ("hrvit", "deployed", "batch"), ("cswin", "plain", "batch"), ("mit", "plain", "batch"), ("mit", "plain", "size"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "form", "free"),
    [
        pytest.param(
            name,
            form,
            free,
            marks=[] if (name, form, free) in QUICK_EXPORTS else slow,
        )
        for name in NETWORKS
        for form in FORMS
        for free in FREE
    ],
)
def test_the_exported_graph_agrees(name: str, form: str, free: str) -> None:
    model, image = made(name, form), torch.randn(SHAPES["fixed"][0])
    exported = torch.export.export(model, (image,), dynamic_shapes=None if FREE[free] is None else (FREE[free],))
    check(exported.module(), model, free)


@pytest.mark.parametrize(
    ("name", "form", "free"),
    [
        pytest.param(name, form, free, marks=[] if (name, form, free) == ("mit", "plain", "batch") else slow)
        for name in NETWORKS
        for form in FORMS
        for free in FREE
    ],
)
@quiet
def test_the_onnx_graph_agrees(tmp_path: Path, name: str, form: str, free: str) -> None:
    model, image, path = made(name, form), torch.randn(SHAPES["fixed"][0]), tmp_path / "model.onnx"
    dynamic = None if FREE[free] is None else (FREE[free],)
    torch.onnx.export(model, (image,), path, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [entry] = session.get_inputs()
    assert all(isinstance(entry.shape[axis], str) for axis in FREE[free] or ()), entry.shape

    def run(x_BCHW: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {entry.name: x_BCHW.numpy()})[0]))

    check(run, model, free, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(name, form, marks=[] if (name, form) == ("mit", "plain") else slow)
        for name in NETWORKS
        for form in FORMS
    ],
)
@quiet
def test_the_openvino_graph_agrees(name: str, form: str) -> None:
    openvino = importlib.import_module("openvino")
    model, image = made(name, form), torch.randn(SHAPES["fixed"][0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = openvino.convert_model(model, example_input=image)
    compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(x_BCHW: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(compiled([x_BCHW.numpy()])[0]))

    check(run, model, "batch", atol=1e-4)


def test_an_image_that_is_too_small_is_still_one_sentence() -> None:
    model = build(NETWORKS["hrvit"])
    with pytest.raises(ConfigError, match="is too small: the coarsest of 2 branches has stride 8"):
        model(torch.randn(1, 3, 7, 64))


@pytest.mark.slow
@quiet
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_b1_is_traced_and_exported_with_a_dynamic_batch() -> None:
    for form in FORMS.values():
        model = form(randomised(create_model("hrvit_b1")))
        check(torch.jit.trace(model, torch.randn(SHAPES["batch"][0])), model, "batch", atol=1e-4)
        exported = torch.export.export(model, (torch.randn(SHAPES["batch"][0]),), dynamic_shapes=(FREE["batch"],))
        check(exported.module(), model, "batch", atol=1e-4)
