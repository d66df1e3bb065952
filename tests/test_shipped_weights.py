"""Trained networks that ship with the package: by our names and timm's, with the scores that their files say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from hrvit_lab import ConfigError, create_model, preset
from hrvit_lab.config import shipped
from hrvit_lab.train.transforms import classify

NAMES = list(shipped())
MAX_MB = 5
DATA = Path(__file__).resolve().parent / "data"


def timm_model(name: str, **options: Any) -> Any:
    return timm.create_model(name, **options)


@pytest.mark.parametrize("name", NAMES)
def test_our_name_and_timms_give_the_same_trained_network(name: str) -> None:
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


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_and_the_card_says_what_is_in_them(name: str) -> None:
    network = shipped()[name]
    assert network.weights.stat().st_size < MAX_MB * 10**6
    card = network.card.read_text(encoding="utf-8")
    for said in (name, f"{network.score_percent:.2f} %", "## Data", "## Training", "## Licence", "hrvit_lab.train"):
        assert said in card, said


def test_the_score_of_a_classifier_is_that_of_a_loop_by_hand() -> None:
    """On the first 200 of Fashion-MNIST's test images: the whole score lies within four standard errors."""
    network = shipped()["hrvit_nano.fashion_mnist"]
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


def test_other_classes_and_channels_keep_the_rest() -> None:
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
def test_what_has_no_weights_is_one_sentence(name: str, options: dict[str, Any]) -> None:
    for create in (create_model, timm_model):
        with pytest.raises(ConfigError) as error:
            create(name, pretrained=True, **options)
        assert "\n" not in str(error.value)


def test_paths_are_no_names() -> None:
    with pytest.raises(ConfigError, match="unknown preset"):
        preset("../weights/hrvit_nano.fashion_mnist")
