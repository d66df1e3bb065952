"""timm's conventions, as its scripts use them."""

from typing import Any

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2

import hrvit_lab
from hrvit_lab import ConfigError, create_model
from hrvit_lab.config import SEGMENTERS

IMAGE = torch.randn(2, 3, 64, 96)


def timm_model(name: str, **options: Any) -> Any:
    """What timm's factory gives (typed loosely there)."""
    return timm.create_model(name, **options)


def test_presets_are_registered() -> None:
    assert set(hrvit_lab.PRESETS) | set(SEGMENTERS) == set(timm.list_models(["hrvit_*", "mit_*", "cswin_*", "hr_*"]))


def test_a_network_created_by_timm_is_the_same() -> None:
    torch.manual_seed(1)
    ours = create_model("hrvit_nano").eval()
    torch.manual_seed(1)
    theirs = timm_model("hrvit_nano").eval()
    with torch.no_grad():
        assert torch.equal(ours(IMAGE), theirs(IMAGE))
    assert theirs.pretrained_cfg["input_size"] == (3, 224, 224) and theirs.pretrained_cfg["crop_pct"] == 0.9


def test_segmentation_networks_are_created_by_name() -> None:
    model = timm_model("hrvit_b1_upernet_ade20k").eval()
    assert model.config == SEGMENTERS["hrvit_b1_upernet_ade20k"] == create_model("hrvit_b1_upernet_ade20k").config
    assert model.pretrained_cfg["num_classes"] == 150 and model.pretrained_cfg["input_size"] == (3, 512, 512)
    for name in model.pretrained_cfg["classifier"]:
        assert model.get_submodule(name).out_channels == 150
    with torch.no_grad():
        assert model(IMAGE).shape == (2, 150, 16, 24)
    assert timm_model("hrvit_b1_segformer_cityscapes", num_classes=3).get_classifier().out_channels == 3
    maps = timm_model("hrvit_b1_segformer_ade20k", features_only=True)(IMAGE)
    assert [m.shape[1] for m in maps] == [32, 64, 128, 256]
    with pytest.raises(ConfigError, match="did you mean 'hrvit_b1_segformer_ade20k'"):
        create_model("hrvit_b1_segformer_ade")


def test_options_of_timms_scripts_are_accepted() -> None:
    model = timm_model(
        "hrvit_nano",
        num_classes=7,
        in_chans=1,
        drop_rate=0.1,
        drop_path_rate=0.2,
        global_pool="avg",
        window_sizes=7,
    )
    assert model.config.drop_path_rate == 0.2 and model.config.window_sizes == (7, 7, 7, 7)
    assert model(IMAGE[:, :1]).shape == (2, 7)
    assert model.num_classes == 7 and model.get_classifier().out_features == 7
    model.reset_classifier(3)
    assert model(IMAGE[:, :1]).shape == (2, 3) and model.num_classes == 3 and model.config.num_classes == 3
    model.reset_classifier(0)
    assert model(IMAGE[:, :1]).shape == (2, model.head_hidden_size)


def test_the_first_convolution_of_every_network_has_the_name_that_timm_expects() -> None:
    """timm adapts it to other numbers of input channels, whatever the stem."""
    for name in ("hrvit_nano", "mit_b0", "cswin_tiny"):
        model = timm_model(name, in_chans=1)
        first = model.get_submodule(model.pretrained_cfg["first_conv"])
        assert isinstance(first, torch.nn.Conv2d) and first.in_channels == 1
    assert [timm_model(name, features_only=True).feature_info.channels() for name in ("mit_b0", "cswin_tiny")] == [
        [32, 64, 160, 256],
        [64, 128, 256, 512],
    ]


def test_features_only_models_return_the_maps() -> None:
    model = timm_model("hrvit_nano", features_only=True)
    maps = model(IMAGE)
    assert [m.shape[1] for m in maps] == model.feature_info.channels() == [8, 16, 32, 64]
    assert [64 // m.shape[2] for m in maps] == model.feature_info.reduction() == [4, 8, 16, 32]
    some = timm_model("hrvit_nano", features_only=True, out_indices=(0, -1))
    assert [m.shape[1] for m in some(IMAGE)] == [8, 64]
    assert not any(name.startswith("model.head") for name, _ in model.named_parameters())


def test_forward_intermediates_returns_the_maps() -> None:
    model = create_model("hrvit_nano").eval()
    with torch.no_grad():
        maps = model.forward_features(IMAGE)
        final, chosen = model.forward_intermediates(IMAGE, indices=[1, 3])
        assert torch.equal(chosen[0], maps[1]) and torch.equal(chosen[1], maps[3])
        assert torch.equal(model.forward_head(final), model(IMAGE))
        assert model.forward_head(maps, pre_logits=True).shape == (2, model.head_hidden_size)
        last = model.forward_intermediates(IMAGE, indices=1, output_fmt="NHWC", intermediates_only=True)
        assert last[0].shape == (2, 2, 3, 64)
    with pytest.raises(ValueError, match="output_fmt"):
        model.forward_intermediates(IMAGE, output_fmt="NLC")


def test_layer_decay_groups_every_parameter() -> None:
    model = create_model("hrvit_nano", num_classes=4)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.9)
    grouped = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert grouped == sum(p.numel() for p in model.parameters())
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert len(scales) > 5 and max(scales) == 1.0


def test_pretrained_and_pooling_are_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="load_checkpoint"):
        timm_model("hrvit_b1", pretrained=True)
    with pytest.raises(ConfigError, match="global_pool"):
        timm_model("hrvit_nano", global_pool="max")
    with pytest.raises(ConfigError, match="unknown field"):
        timm_model("hrvit_nano", widht=3)
