"""int8 for ``pt2`` by torchao: the file's products against rounding by hand; what is left in the file."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hrvit_lab.export.formats import FORMATS
from hrvit_lab.export.request import Request
from hrvit_lab.export.write import export_network

pytest.importorskip("torchao")


@pytest.mark.parametrize("free", [(), ("batch",)])
def test_products_are_those_of_rounded_numbers(tmp_path: Path, free: tuple[str, ...]) -> None:
    """Weights: 127.5 steps for the largest absolute value of an output channel. Inputs: 255 steps for their range, of
    which torchao's histogram may leave out a little."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 1).eval().requires_grad_(False)
    images = torch.rand(8, 3, 4, 4) * 3 - 1
    request = Request("pt2", (4, 4), 2, free, dtype="int8", calibration=images)
    exported = export_network(layer, request, tmp_path)
    assert [check.images for check in exported.checks if check.required and not check.agrees] == []
    program = torch.export.load(exported.path)
    matrices = [tensor for tensor in program.state_dict.values() if tensor.numel() == 12]
    assert [tensor.dtype for tensor in matrices] == [torch.int8]  # and none in float32
    assert layer.bias is not None
    w = layer.weight.numpy().reshape(4, 3)
    w_step = np.abs(w).max(1, keepdims=True) / 127.5
    w_levels = matrices[0].numpy().reshape(4, 3)
    assert np.abs(w_levels - w / w_step).max() < 0.501
    [rounding] = [node for node in program.graph.nodes if "quantize_per_tensor.default" in str(node.target)][:1]
    step, zero = rounding.args[1:3]
    assert step == pytest.approx(np.ptp(images.numpy()) / 255, rel=0.02)
    assert zero == np.round(-images.min().item() / step)
    x = images.numpy()
    x_rounded = (np.clip(np.round(x / step) + zero, 0, 255) - zero) * step
    wanted = np.einsum("oc,nchw->nohw", w_levels * w_step, x_rounded) + layer.bias.numpy().reshape(1, 4, 1, 1)
    run = FORMATS["pt2"].load(exported.path, request)
    found = np.concatenate([run(pair)[0].numpy() for pair in images.split(2)])
    assert np.abs(found - wanted).max() < 1e-5 < 1e-3 < np.abs(found - layer(images).numpy()).max()
    # torchao sets it, which would change what torch.compile does to other networks.
    assert import_module("torch._inductor.config").pre_grad_custom_pass is None
