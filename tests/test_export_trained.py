"""``hrvit-lab export`` of trained networks with the data of their training."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from hrvit_lab.__main__ import main
from hrvit_lab.config import ConfigError
from hrvit_lab.network.named import open_network

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")

SETTINGS = {
    "data.name": "digits", "data.resolution_px": 32, "data.train_limit": 32, "data.batch_size_per_process": 16,
    "data.global_batch_size": 16, "evaluation.resolution_px": 32, "schedule.epochs": 1, "schedule.warmup_epochs": 0,
    "run.workers": 0, "run.threads": 1, "regularisation.ema": "false",
}  # fmt: skip


def train(model: str) -> None:
    """Train a network for two steps on digits; its folder is ``run``."""
    changes = ",".join(f"{key}={value}" for key, value in {**SETTINGS, "model.name": model}.items())
    assert main(["train", "fashion_mnist", "--set", changes, "--out", "run"]) == 0


@pytest.fixture
def resnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the training of a timm model."""
    monkeypatch.chdir(tmp_path)
    train("timm:test_resnet")
    return tmp_path / "run"


def test_a_trained_model_of_timm_is_exported(resnet: Path) -> None:
    assert not (resnet / "config.yaml").exists()
    assert main(["export", "run", "--format", "torchscript", "--no-race", "--out", "made"]) == 0
    card = json.loads(Path("made/card.json").read_text())
    assert card["trained"] and card["resolution_px"] == [32, 32] and card["output_shapes"] == [[1, 10]]
    assert (card["config"]["model"], card["config"]["num_classes"]) == ("timm:test_resnet", 10)
    plain = timm.create_model("test_resnet", num_classes=10).eval()
    plain.load_state_dict(load_file(resnet / "best.safetensors"))
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load("made/model.pt")(images), plain(images), atol=1e-4, rtol=1e-4)
    (resnet / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"run has no result\.json with the number of classes of 'timm:test_resnet'"):
        open_network("run")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_sensitivity_of_a_trained_model_of_timm_is_by_module(resnet: Path) -> None:
    line = "export sensitivity run --data run/recipe.yaml --calibration-images 16 --test-images 32 --out made"
    assert main(line.split()) == 0
    rows = [row.split(",")[:3] for row in Path("made/sensitivity.csv").read_text().splitlines()[1:]]
    assert rows[0][2] == "everything" and ["", "", "layer1.0"] in rows and ["", "", "fc"] in rows
