"""``hrvit-lab export`` of trained networks with the data of their training."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hrvit_lab import HRViTConfig, build, create_model
from hrvit_lab.__main__ import main
from hrvit_lab.config import ConfigError, shipped
from hrvit_lab.export.formats import FORMATS
from hrvit_lab.export.request import Request
from hrvit_lab.latency.models import randomize_norms
from hrvit_lab.network.named import open_network
from hrvit_lab.train.data.samples import Samples, open_samples
from hrvit_lab.train.recipe import load_recipe

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


# -- int8 with the data of a recipe ----------------------------------------------------------------------------

SMALL = HRViTConfig(
    name="small", depths=((1, 1), (1, 1)), widths=(8, 16), stem_width=8, head_dims=4, window_sizes=2, mlp_ratios=2,
    num_classes=10, head_widths=2, head_features=8,
)  # fmt: skip


def by_hand(samples: Samples, indices: Sequence[int], side: int, mean: float, std: float) -> tuple[Tensor, list[int]]:
    """Images at this side with mean and standard deviation, (N, 3, H, W), and their classes."""
    found, classes = [], []
    for index in indices:
        image, target = samples[index]
        assert isinstance(target, int)
        pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32)
        found.append((pixels.transpose(2, 0, 1) / 255 - mean) / std)
        classes.append(target)
    return torch.from_numpy(np.stack(found)), classes


def percent(run: Callable[[Tensor], Tensor], images: Tensor, classes: Sequence[int], at_once: int) -> float:
    """Percentage of images whose largest output is that of their class; the last batch is full."""
    assert len(images) % at_once == 0
    guesses = [guess for batch in images.split(at_once) for guess in run(batch).argmax(1).tolist()]
    return 100 * sum(a == b for a, b in zip(guesses, classes, strict=True)) / len(classes)


@torch.no_grad()
def rounded(network: nn.Module) -> nn.Module:
    """A copy whose matrices and kernels have 15 values each."""
    network = copy.deepcopy(network)
    for weight in network.parameters():
        step = weight.abs().max().clamp(min=1e-6) / 7
        weight.copy_((weight / step).round() * step if weight.ndim > 1 else weight)
    return network


def test_the_data_of_a_recipe_calibrate_and_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a format that rounds weights and has no runtime."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = build(SMALL).eval()
    randomize_norms(model)
    images, classes = by_hand(open_samples("digits", "val"), range(360), 32, 0.3, 0.4)
    with torch.no_grad():
        dict(model.named_parameters())["head.classifier.bias"].sub_(model(images).mean(0))  # so that all classes occur
    Path("run").mkdir()
    Path("run/config.yaml").write_text(SMALL.to_yaml())
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, "run/model.safetensors")
    settings = [("data.name", "digits"), ("data.mean", [0.3] * 3), ("data.std", [0.4] * 3)]
    Path("digits.yaml").write_text(load_recipe("fashion_mnist", settings=settings).to_yaml())
    calibrated: list[Tensor] = []

    def write(served: nn.Module, request: Request, path: Path) -> None:
        assert request.calibration is not None
        calibrated.append(request.calibration)
        torch.save(rounded(served), path)

    def load(path: Path, request: Request) -> Callable[[Tensor], list[Tensor]]:
        network = torch.load(path, weights_only=False)
        return lambda images: [network(images)]

    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=write, load=load))
    monkeypatch.setattr("hrvit_lab.network.rounding.INT8_TOLERANCE", 1e6)  # outputs have almost no mean
    line = "export run --format onnx --dtype int8 --data digits.yaml --resolution 32 --batch-size 20 --no-race"
    assert main([*line.split(), "--calibration-images", "20", "--test-images", "400", "--out", "made"]) == 0
    card, text = json.loads(Path("made/card.json").read_text()), Path("made/card.md").read_text()
    order = torch.randperm(1437, generator=torch.Generator().manual_seed(0))[:20].tolist()
    wanted, _ = by_hand(open_samples("digits", "train"), order, 32, 0.3, 0.4)
    torch.testing.assert_close(calibrated[0], wanted, atol=0.02, rtol=0)
    found = card["accuracy"]
    with torch.no_grad():
        assert found["before"] == pytest.approx(percent(model, images, classes, 20))
        assert found["after"] == pytest.approx(
            percent(torch.load("made/model.onnx", weights_only=False), images, classes, 20)
        )
    assert found["images"] == 360 and found["before"] != found["after"]
    assert found["change_low"] <= found["after"] - found["before"] <= found["change_high"]
    assert f"Calibrated on 20 images. {found['sentence']}" in text and f"{found['before']:.2f} % before" in text


def test_a_recipe_without_a_normalisation_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL.to_yaml())
    line = "export small.yaml --format onnx --dtype int8 --data proxy --resolution 32"
    assert main(line.split()) == 2
    assert "--data proxy has no data.mean and data.std; give another recipe" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8_of_a_shipped_network_keeps_its_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Both accuracies are measured again, with the runtime alone and images that are made by hand."""
    runtime = pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[name])
    monkeypatch.chdir(tmp_path)
    model = "hrvit_micro.fashion_mnist"
    line = f"export {model} --format {name} --no-race --out"
    data = "int8 --dtype int8 --data fashion_mnist --test-images 2000"
    assert main([*line.split(), *data.split()]) == 0
    found, about = json.loads(Path("int8/card.json").read_text())["accuracy"], shipped()[model]
    assert found["images"] == 2000 and found["within"] and found["after"] - found["before"] > -0.5
    assert about.crop_fraction == 1 and about.interpolation == "bilinear" and len({*about.mean, *about.std}) == 2
    side, order = about.resolution_px[0], torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[:2000]
    images, classes = by_hand(open_samples("fashion_mnist", "val"), order.tolist(), side, about.mean[0], about.std[0])
    if name == "onnx":
        session = runtime.InferenceSession("int8/model.onnx", providers=["CPUExecutionProvider"])
        after = percent(
            lambda batch: torch.from_numpy(session.run(None, {"images": batch.numpy()})[0]), images, classes, 1
        )
    else:
        compiled = runtime.Core().compile_model("int8/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        after = percent(lambda batch: torch.from_numpy(compiled([batch.numpy()])[0]), images, classes, 1)
    with torch.no_grad():
        before = percent(create_model(model, pretrained=True).eval(), images, classes, 50)
    assert found["before"] == pytest.approx(before, abs=0.11) and found["after"] == pytest.approx(after, abs=0.11)
    if name == "onnx":  # OpenVINO's text of the graph is larger than its weights
        assert main([*line.split(), "float32"]) == 0
        assert Path("int8/model.onnx").stat().st_size <= 0.3 * Path("float32/model.onnx").stat().st_size


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_sensitivity_of_a_trained_model_of_timm_is_by_module(resnet: Path) -> None:
    line = "export sensitivity run --data run/recipe.yaml --calibration-images 16 --test-images 32 --out made"
    assert main(line.split()) == 0
    rows = [row.split(",")[:3] for row in Path("made/sensitivity.csv").read_text().splitlines()[1:]]
    assert rows[0][2] == "everything" and ["", "", "layer1.0"] in rows and ["", "", "fc"] in rows
