"""int8 for ``openvino`` by NNCF: the error is that of rounding, by hand; nothing is shown or changed."""

import logging
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.export.formats import FORMATS
from hrvit_lab.export.request import Request
from hrvit_lab.export.write import export_network

openvino = pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(find_spec("nncf") is None, reason="NNCF is not installed")


@pytest.mark.parametrize("free", [(), ("batch",)])
def test_products_are_those_of_rounded_numbers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, free: tuple[str, ...]
) -> None:
    """Inputs: 127 steps for the mean, over batches, of the largest absolute value. Weights: 63.5 steps for that of an
    output channel, because NNCF spares one bit of the first layer, whose sums some processors would clip. The mean
    error of a channel is subtracted."""
    monkeypatch.delenv("NNCF_CI", raising=False)
    loggers = logging.getLoggerClass()
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 1, bias=False).eval().requires_grad_(False)
    images = torch.rand(8, 3, 4, 4) * 3 - 1
    request = Request("openvino", (4, 4), 2, free, dtype="int8", calibration=images)
    exported = export_network(layer, request, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    weights = [
        node.get_data().reshape(4, 3)
        for node in openvino.Core().read_model(exported.path).get_ordered_ops()
        if node.get_type_name() == "Constant" and node.get_element_type() == openvino.Type.i8
    ]
    x, w = images.numpy(), layer.weight.numpy().reshape(4, 3)
    x_step = np.mean([np.abs(pair).max() for pair in np.split(x, 4)]) / 127
    w_step = np.abs(w).max(1, keepdims=True) / 63.5
    assert len(weights) == 1 and np.abs(weights[0] - w / w_step).max() < 0.501
    x_rounded = np.clip(np.round(x / x_step), -128, 127) * x_step
    rounded = np.einsum("oc,nchw->nohw", weights[0] * w_step, x_rounded)
    exact = np.einsum("oc,nchw->nohw", w, x)
    run = FORMATS["openvino"].load(exported.path, request)
    found = np.concatenate([run(pair)[0].numpy().copy() for pair in images.split(2)])
    correction = (found - rounded).mean((0, 2, 3), keepdims=True)
    assert np.abs(found - rounded - correction).max() < 1e-4
    assert np.abs(correction + (rounded - exact).mean((0, 2, 3), keepdims=True)).max() < 2e-3
    assert np.abs(found - exact).max() > 1e-2
    assert capfd.readouterr().out == "" and "NNCF_CI" not in os.environ
    assert logging.getLoggerClass() is loggers


def test_calibration_needs_a_batch(tmp_path: Path) -> None:
    request = Request("openvino", (4, 4), 3, dtype="int8", calibration=torch.rand(2, 3, 4, 4))
    with pytest.raises(ConfigError, match="calibration needs at least one batch of 3 images, but --data has 2"):
        export_network(nn.Conv2d(3, 4, 1), request, tmp_path)
