"""The app counts the memory that a network needs, and refuses what is too large before anything is allocated."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest
from test_app import run
from test_look_inside import draw_look_inside
from torch.utils._python_dispatch import TorchDispatchMode

from hrvit_lab import create_model
from hrvit_lab.app import memory_cap, subjects
from hrvit_lab.app.memory_cap import MAX_BYTES, MAX_SIDE, MAX_WEIGHT_BYTES
from hrvit_lab.app.pages import look_inside
from hrvit_lab.config import PRESETS, SEGMENTERS, ConfigError, HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.insight import evidence
from hrvit_lab.insight.features import feature_maps
from hrvit_lab.insight.what import WHAT
from hrvit_lab.network.named import open_network

pytestmark = pytest.mark.usefixtures("main_module")

LARGEST = HRViTConfig(
    depths=[[64] * 5] * 32, widths=4096, head_dims=1024, mlp_ratios=8, attention="global", num_classes=100_000,
    head_features=16_384, stem_width=1024,
)  # fmt: skip
"""About as large as the schema allows: 13 TiB of weights."""


class Allocations(TorchDispatchMode):
    """Records the largest tensor that an operator returns, in bytes."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.nbytes)
        return result


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a training with its weights, offered by the app."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("data: {}\n")
    (folder / "config.yaml").write_text(PRESETS["hrvit_nano"].to_yaml())
    (folder / "model.safetensors").write_bytes(b"never read")
    monkeypatch.setattr("sys.argv", ["app.py", "--runs", str(tmp_path / "runs")])
    yield folder


def alerts(app: AppTest) -> list[str]:
    assert not app.exception
    return [each.value for each in app.error]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (LARGEST.to_dict(), "MiB of weights, and the app builds networks of at most 1,024 MiB"),
        ({"preset": "hrvit_b1", "in_chans": 4}, "in_chans = 4, but images have 3"),
    ],
    ids=["weights", "channels"],
)
def test_a_network_that_can_not_be_shown_is_refused_before_it_is_built(
    training: Path, changes: dict[str, Any], message: str
) -> None:
    (training / "config.yaml").write_text(json.dumps(changes))
    with Allocations() as seen, pytest.raises(ConfigError, match=message):
        subjects.network(str(training), 0)
    assert seen.largest == 0
    app = run(draw_look_inside)
    app.selectbox(key="network").set_value("training mine").run()
    [alert] = alerts(app)
    assert message in alert.replace("\\", "") and len(alert.splitlines()) == 1


def test_the_limit_of_weights_is_that_of_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the tensors of a network: one byte less is too little."""
    tensors = create_model("hrvit_nano").state_dict().values()
    weights = sum(tensor.nbytes for tensor in tensors if tensor.is_floating_point())
    monkeypatch.setattr(memory_cap, "MAX_WEIGHT_BYTES", weights)
    memory_cap.check_weights("nano", PRESETS["hrvit_nano"])
    monkeypatch.setattr(memory_cap, "MAX_WEIGHT_BYTES", weights - 1)
    with pytest.raises(ConfigError, match=r"^nano has 2 MiB of weights"):
        memory_cap.check_weights("nano", PRESETS["hrvit_nano"])


def test_every_preset_can_be_built_and_shown_at_its_first_size() -> None:
    for name, config in {**PRESETS, **SEGMENTERS}.items():
        memory_cap.check_weights(name, config)
        for what in WHAT:
            memory_cap.check_view(name, config, subjects.SIDES[0], what)


def test_views_with_gradients_or_many_images_of_large_networks_are_refused() -> None:
    large = SEGMENTERS["hrvit_b3_segformer_ade20k"]
    with pytest.raises(ConfigError, match=r"needs about [\d,]+ MiB for evidence at 512×512 px, and the app allows"):
        memory_cap.check_view("large", large, 512, "evidence")
    memory_cap.check_view("large", large, 512, "segments")
    with pytest.raises(ConfigError, match="for receptive field at 1024×1024 px"):
        memory_cap.check_view("large", large, 1024, "receptive_field")
    with pytest.raises(ConfigError, match="too small"):
        memory_cap.check_view("large", large, 16, "segments")


def test_a_view_of_a_large_network_is_refused_on_the_page_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_cap, "MAX_BYTES", 40 * 2**20)
    ran: list[int] = []
    found = subjects.network("hrvit_nano", 0)
    hook = found.model.register_forward_pre_hook(lambda *_: ran.append(1))
    image = np.zeros((512, 512, 3), np.uint8)
    try:
        with pytest.raises(ConfigError, match=r"needs about \d+ MiB for receptive field at 512×512 px"):
            look_inside._view(look_inside.view_key("hrvit_nano", 0, image, "receptive_field", look_inside.Asked()))
    finally:
        hook.remove()
    assert ran == []


def test_the_memory_of_gradients_covers_what_the_graph_keeps() -> None:
    """Against the tensors that autograd saves in a forward pass with gradients."""
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for name in ("hrvit_nano", "mit_b0", "hrvit_micro"):
        saved.clear()
        model = open_network(name).model
        weights = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            maps = feature_maps(model, torch.zeros(1, 3, 128, 128, requires_grad=True), gradients=True)
        kept = sum(size for place, size in saved.items() if place not in weights)
        allowed = memory_cap.view_bytes(PRESETS[name], 128, "receptive_field") - count(name, 128).weight_bytes()
        assert 0.4 * allowed < kept < allowed, name
        del maps


def test_occlusion_runs_as_many_images_as_are_counted() -> None:
    assert evidence.BATCH == memory_cap.OCCLUDED


# -- the side of images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["recipe.yaml", "result.json"])
@pytest.mark.parametrize("side", [10**9, MAX_SIDE + 1, 8, 0, -5, True, 1e300, "x", [10**12, 1]])
def test_the_side_of_a_training_is_bounded(training: Path, file: str, side: Any) -> None:
    (training / "recipe.yaml").unlink()
    (training / file).write_text(json.dumps({"data": {"resolution_px": side, "std": [0, 1e400, -1]}}))
    (training / "model.safetensors").unlink()
    torch.save(create_model("hrvit_nano").state_dict(), training / "weights.pth")
    found = open_network(str(training / "weights.pth"))
    assert sorted(subjects.sides(found)) == [64, 128, 224, 320, 512]
    assert found.std == (0.229, 0.224, 0.225)


def test_the_side_of_a_training_is_the_first_one(training: Path) -> None:
    (training / "recipe.yaml").write_text(json.dumps({"data": {"resolution_px": [96, 96], "std": [1, 0.5, 2]}}))
    torch.save(create_model("hrvit_nano").state_dict(), training / "weights.pth")
    found = open_network(str(training / "weights.pth"))
    assert subjects.sides(found) == [96, 64, 128, 224, 320, 512]
    assert found.std == (1, 0.5, 2)


def test_a_file_of_weights_that_is_too_large_is_not_read(training: Path) -> None:
    with open(training / "model.safetensors", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # a sparse file
    with pytest.raises(ConfigError, match=r"model\.safetensors has more than 4,096 MiB; save the weights only"):
        subjects.network(str(training), 1)
    assert MAX_WEIGHT_BYTES < MAX_BYTES
