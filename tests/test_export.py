"""Exported graphs compute what the network computes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from reference import reference_tensor

from hrvit_lab import create_model
from hrvit_lab.config import preset, with_branches
from hrvit_lab.network.build import build
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.model import HRViT


def nano(head: str) -> HRViT:
    """With weights for which attention has an effect (at initialization its BatchNorm is zero)."""
    model = create_model("hrvit_nano", num_classes=10, head=head).eval()
    model.load_state_dict({key: reference_tensor(key, tuple(v.shape)) for key, v in model.state_dict().items()})
    return model


@pytest.mark.parametrize(
    "make", [lambda: small(2), pytest.param(partial(nano, "classifier"), marks=pytest.mark.slow)], ids=["small", "nano"]
)
def test_the_exported_program_agrees(make: Callable[[], HRViT]) -> None:
    model, image = make(), torch.randn(1, 3, 64, 96)
    exported = torch.export.export(model, (image,)).module()
    other = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(exported(other), model(other), atol=1e-5, rtol=1e-5)


def small(branches: int) -> HRViT:
    """A network that is exported in seconds: a different window for every branch, and fusions between them."""
    depths = tuple((1,) * number for number in range(1, branches + 1))
    model = build(with_branches(preset("hrvit_nano"), branches).replace(depths=depths)).eval()
    model.load_state_dict({key: reference_tensor(key, tuple(v.shape)) for key, v in model.state_dict().items()})
    return model


def deployed() -> HRViT:
    return deploy(small(2))


@pytest.mark.parametrize(
    ("make", "height", "width"),
    [
        pytest.param(partial(small, 2), 64, 96, marks=pytest.mark.slow),
        pytest.param(partial(small, 3), 104, 72, marks=pytest.mark.slow),
        pytest.param(deployed, 64, 64, marks=pytest.mark.slow),
        pytest.param(deployed, 104, 72, marks=pytest.mark.slow),
        pytest.param(partial(nano, "classifier"), 64, 96, marks=pytest.mark.slow),
        pytest.param(partial(nano, "classifier"), 104, 72, marks=pytest.mark.slow),
        pytest.param(partial(nano, "segformer"), 104, 72, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_onnx_runtime_agrees(tmp_path: Path, make: Callable[[], HRViT], height: int, width: int) -> None:
    model = make()
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (torch.randn(1, 3, height, width),), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = torch.randn(1, 3, height, width)
    (ours,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        expected = model(image).numpy()
    assert np.abs(expected).max() > 0.1
    assert np.abs(ours - expected).max() < 1e-4
