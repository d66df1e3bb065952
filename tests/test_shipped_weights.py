"""Trained networks of the package: by our names and timm's, with the scores that their files state."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from ship_a_segmenter import CHANGES, CLASSES, NAME, PX
from test_data import write_idx
from test_scenes import write_fashion

from hrvit_lab import ConfigError, count, create_model, load_checkpoint, preset
from hrvit_lab.config import shipped
from hrvit_lab.config.shipped import Shipped
from hrvit_lab.evaluate.__main__ import main as evaluate
from hrvit_lab.latency.models import find_model
from hrvit_lab.network.baselines import network_from_dict
from hrvit_lab.study.__main__ import main as study
from hrvit_lab.train import assemble
from hrvit_lab.train.__main__ import main as train
from hrvit_lab.train.data.composites import open_composites
from hrvit_lab.train.recipe import load_recipe
from hrvit_lab.train.transforms import classify

NAMES = list(shipped())
MAX_MB = 5
DATA = Path(__file__).resolve().parent / "data"


def timm_model(name: str, **options: Any) -> Any:
    return timm.create_model(name, **options)


@pytest.mark.parametrize("name", NAMES)
def test_our_name_and_the_name_in_timm_give_the_same_trained_network(name: str) -> None:
    network = shipped()[name]
    ours, theirs = create_model(name, pretrained=True).eval(), timm_model(name, pretrained=True).eval()
    x = torch.rand(2, 3, *network.resolution_px)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x)) and not torch.equal(ours(x), create_model(name).eval()(x))
    assert ours.config == preset(name) and ours.num_classes == len(network.classes)
    config = timm.data.resolve_data_config({}, model=theirs)
    assert config["input_size"] == (3, *network.resolution_px) and config["crop_pct"] == network.crop_fraction
    assert config["mean"] == network.mean and config["std"] == network.std
    assert theirs.pretrained_cfg["label_names"] == network.classes


@pytest.mark.parametrize("field", ["name", "num_classes"])
def test_changes_of_the_preset_exclude_what_the_network_itself_says(field: str) -> None:
    fields = shipped()[NAMES[0]].model_dump() | {"changes": {field: 3}}
    with pytest.raises(ValueError, match=f"{field} is that of the network; remove it from changes"):
        Shipped(**fields)


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_and_described_by_the_card(name: str) -> None:
    network = shipped()[name]
    assert network.weights.stat().st_size < MAX_MB * 10**6
    card = network.card.read_text(encoding="utf-8")
    for said in (name, f"{network.score_percent:.2f} %", "## Data", "## Training", "## Licence", "hrvit_lab.train"):
        assert said in card, said


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".fashion_mnist")])
def test_the_score_of_a_classifier_equals_that_of_a_naive_loop(name: str) -> None:
    """On the first 200 test images of Fashion-MNIST; the full score is within four standard errors."""
    network = shipped()[name]
    model = create_model(network.name, pretrained=True).eval()
    with np.load(DATA / "fashion_mnist_test_200.npz") as file:
        images, labels = file["images"], file["labels"]
    transform = classify.test_transform(
        network.resolution_px, crop_fraction=network.crop_fraction, interpolation=network.interpolation,
        mean=network.mean, std=network.std,
    )  # fmt: skip
    with torch.no_grad():
        logits = model(torch.stack([transform(Image.fromarray(image)) for image in images]))
    right = int((logits.argmax(1).numpy() == labels).sum())
    share = network.score_percent / 100
    assert abs(right / 200 - share) < 4 * (share * (1 - share) / 200) ** 0.5


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".composites")])
def test_the_score_of_a_segmenter_is_near_that_of_a_naive_loop(name: str, tmp_path: Path) -> None:
    """On 100 scenes with the first 200 test items of Fashion-MNIST: the stated score is that of all items."""
    network = shipped()[name]
    model = create_model(network.name, pretrained=True).eval()
    with np.load(DATA / "fashion_mnist_test_200.npz") as file:
        for kind in ("images-idx3", "labels-idx1"):
            write_idx(tmp_path / f"t10k-{kind}-ubyte", file[kind.partition("-")[0]])
    scenes = open_composites("val", tmp_path)
    both, either = np.zeros(11), np.zeros(11)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (network.mean, network.std))
    for index in range(100):
        image, labels, _ = scenes.drawn(index)
        with torch.no_grad():
            logits = model(((torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std)[None])
        predicted = torch.nn.functional.interpolate(logits, labels.shape, mode="bilinear")[0].argmax(0).numpy()
        for number in range(11):
            both[number] += ((predicted == number) & (labels == number)).sum()
            either[number] += ((predicted == number) | (labels == number)).sum()
    assert abs(100 * (both / either).mean() - network.score_percent) < 6


def test_with_other_classes_and_channels_the_other_weights_are_loaded() -> None:
    name = "hrvit_nano.fashion_mnist"
    whole = create_model(name, pretrained=True).state_dict()
    for create in (create_model, timm_model):
        state = create(name, pretrained=True, num_classes=3, in_chans=1).state_dict()
        other = {key for key, value in state.items() if not torch.equal(value, whole[key])}
        assert other == {"stem.conv1.weight", "head.classifier.weight", "head.classifier.bias"}
        torch.testing.assert_close(state["stem.conv1.weight"], whole["stem.conv1.weight"].sum(1, keepdim=True))
    maps = timm_model(name, pretrained=True, features_only=True)
    with torch.no_grad():
        found, x = maps.eval(), torch.rand(1, 3, 32, 32)
        expected = create_model(name, pretrained=True).eval().forward_intermediates(x, intermediates_only=True)
        assert all(torch.equal(one, other) for one, other in zip(found(x), expected, strict=True))


def test_a_preset_stays_untrained_and_has_its_own_settings() -> None:
    model = timm_model("hrvit_nano")
    assert model.pretrained_cfg["input_size"] == (3, 224, 224) and model.num_classes == 1000


@pytest.mark.parametrize(
    ("name", "options"),
    [("hrvit_b1", {}), ("hrvit_nano", {}), ("hrvit_nano.imagenet", {}), ("hrvit_nano.fashion_mnist", {"widths": 16})],
)
def test_a_network_without_weights_is_reported_in_one_sentence(name: str, options: dict[str, Any]) -> None:
    for create in (create_model, timm_model):
        with pytest.raises(ConfigError) as error:
            create(name, pretrained=True, **options)
        assert "\n" not in str(error.value)


def test_paths_are_not_accepted_as_names() -> None:
    with pytest.raises(ConfigError, match="unknown preset"):
        preset("../weights/hrvit_nano.fashion_mnist")


# -- in commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "timm:"])
def test_every_command_accepts_the_name(prefix: str) -> None:
    name = f"{prefix}hrvit_nano.fashion_mnist"
    config = preset("hrvit_nano.fashion_mnist")
    assert count(name, 32).macs == count(config, 32).macs
    assert find_model(name).plain.config == find_model(f"{name}:deploy").plain.config == config
    assert network_from_dict({"model" if prefix else "preset": name}) == config
    recipe = load_recipe("fashion_mnist", name)
    assert recipe.model.name == config.name and load_recipe("fashion_mnist", None, [("model.name", name)]) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_of_its_data_set_prepares_images_as_its_file_says(name: str) -> None:
    network = shipped()[name]
    recipe = load_recipe(network.dataset, name)
    assert (recipe.data.mean, recipe.data.std) == (network.mean, network.std)
    if recipe.task == "classification":
        chosen = recipe.evaluation
        assert chosen.resolution_px == network.resolution_px and chosen.crop_fraction == network.crop_fraction
        assert chosen.interpolation == network.interpolation


@pytest.fixture
def few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first 200 test images of Fashion-MNIST, as a data set of 40 images to train on and 200 to score."""
    with np.load(DATA / "fashion_mnist_test_200.npz") as file:
        for split, number in (("train", 40), ("t10k", 200)):
            write_idx(tmp_path / f"{split}-images-idx3-ubyte", file["images"][:number])
            write_idx(tmp_path / f"{split}-labels-idx1-ubyte", file["labels"][:number])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_shipped_network_is_scored_by_name(few_images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(few_images), "--set", "run.workers=0", "--device", "cpu"]
    assert evaluate(["timm:hrvit_nano.fashion_mnist", *options]) == 0
    scores = json.loads((few_images / "runs/hrvit_nano.fashion_mnist/evaluation/scores.json").read_text())
    model = create_model("hrvit_nano.fashion_mnist", pretrained=True).eval()
    with np.load(DATA / "fashion_mnist_test_200.npz") as file:
        images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    x_BCHW = torch.nn.functional.interpolate(images[:, None].float(), (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        logits = model(((x_BCHW.round() / 255 - 0.286) / 0.353).expand(-1, 3, -1, -1))
    assert abs(scores["top1"] - 100 * float((logits.argmax(1) == labels).float().mean())) <= 1.0
    assert scores["n_seen"] == 200 and scores["top1"] > 80
    # Other results are never replaced.
    given = few_images / "runs/hrvit_nano.fashion_mnist/evaluation"
    before = {path: path.read_bytes() for path in given.iterdir()}
    capsys.readouterr()
    other = ["hrvit_nano.fashion_mnist", *options, "--set", "data.mean=[0,0,0]"]
    assert evaluate([*other, "--out", str(given)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "already contains scores.json, which is never overwritten; choose another folder with --out" in line
    assert evaluate(["hrvit_nano.fashion_mnist", *options]) == 0
    assert (few_images / "runs/hrvit_nano.fashion_mnist/evaluation-2/scores.json").exists()
    assert before == {path: path.read_bytes() for path in given.iterdir()}
    capsys.readouterr()
    assert evaluate(["hrvit_nano.fashion_mnis"]) == 2 and "hrvit_nano.fashion_mnist" in capsys.readouterr().err


def test_a_training_starts_from_a_shipped_network(few_images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = "run.workers=0,schedule.epochs=1,schedule.warmup_epochs=0,data.train_limit=40,optimiser.learning_rate=0"
    options = ["--set", settings, "--device", "cpu", "--out", "tuned"]
    common = ["--data", str(few_images), "--model", "timm:hrvit_nano.fashion_mnist"]
    assert train(["fashion_mnist", *common, *options]) == 0
    said = capsys.readouterr().out
    assert "Initial weights: 1184 tensors loaded" in said and "head" not in said
    tuned = create_model("tuned/config.yaml")
    load_checkpoint(tuned, "tuned/last.safetensors")
    trained = create_model("hrvit_nano.fashion_mnist", pretrained=True)
    pairs = zip(tuned.parameters(), trained.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)  # at a learning rate of 0


def test_other_classes_and_heads_are_reported() -> None:
    whole = create_model("hrvit_nano.fashion_mnist", pretrained=True).state_dict()
    recipe = load_recipe("fashion_mnist", "hrvit_nano.fashion_mnist")
    for task_recipe, classes in ((recipe, 3), (load_recipe("composites", "hrvit_nano.fashion_mnist"), 11)):
        model, report = assemble.make_model(task_recipe, classes)
        assert report is not None and report.new_head
        state = model.state_dict()
        body = [key for key in whole if not key.startswith("head.")]
        assert body and all(torch.equal(state[key], whole[key]) for key in body)
    model, report = assemble.make_model(recipe, 10)
    assert report is not None and not report.new_head


def test_commands_that_do_not_use_trained_weights_refuse_the_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(["timm:hrvit_nano.fashion_mnist", "--out", str(tmp_path / "run")]) == 2
    assert "hrvit-lab train fashion_mnist --model hrvit_nano.fashion_mnist" in capsys.readouterr().err
    for key, name in (("preset", ""), ("model", "timm:")):
        file = tmp_path / f"{key}.yaml"
        file.write_text(
            "title: t\nquestion: q\nbase: hrvit_nano\nresolution: 32\nmetrics: [top1]\n"
            f"variants: [{{name: a, set: {{{key}: '{name}hrvit_nano.fashion_mnist'}}}}]\n"
        )
        assert study([str(file), "--out", str(tmp_path / "results"), "--dry-run"]) == 2
        error = capsys.readouterr().err
        assert "starts from random weights" in error or "trains from random weights" in error, error
        assert study([str(file), "--out", str(tmp_path / "results"), "--dry-run", "--metrics", "macs"]) == 0
        capsys.readouterr()


# -- networks that differ from their preset ----------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_a_shipped_network_may_differ_from_its_preset(tmp_path: Path) -> None:
    """A segmenter of three branches with random weights: by our names and timm's, and in commands."""
    write_fashion(tmp_path)
    script = Path(__file__).with_name("ship_a_segmenter.py")
    run = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    wanted = preset("hrvit_nano").replace(name=NAME, num_classes=CLASSES, **CHANGES)
    assert found["config"] == wanted.model_dump(mode="json")
    assert found["same"] and found["shape"] == [1, CLASSES, PX // 4, PX // 4]
    assert found["macs"][0] == found["macs"][1] == count(wanted, PX).macs
    assert found["classes"] == [f"class {number}" for number in range(CLASSES)]
    assert found["input_size"] == [3, PX, PX] and found["untrained"] == 64 and found["preset"]
    other = ["head.classifier.bias", "head.classifier.weight", "stem.conv1.weight"]
    assert found["new"] == [other, other]
    assert found["features"] == [[1, 8 * 2**n, PX // 2 ** (n + 2), PX // 2 ** (n + 2)] for n in range(3)]
    assert found["opened"] == [True, "class 0", []]
    assert found["trained"] == [0, []] and found["evaluated"] == [0, 3]
    assert "Initial weights" in run.stdout and "starts from random weights" not in run.stdout
