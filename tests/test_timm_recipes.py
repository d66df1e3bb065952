"""Models of timm in recipes: the recipe's regularisation and the groups of parameters, as of HRViTs."""

from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.optim import param_groups_layer_decay
from torch import nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.network.baselines import TimmConfig, build_network
from hrvit_lab.train.assemble import make_model
from hrvit_lab.train.optim import parameter_groups
from hrvit_lab.train.recipe import load_recipe

NARROW = {"channels": [8, 8, 8, 8]}
REGULAR: dict[str, Any] = {
    "regularisation.drop_path": 0.7, "regularisation.head_drop": 0.5, "precision.gradient_checkpointing": True,
}  # fmt: skip


def made(model: str, options: dict[str, Any], more: dict[str, Any], segments: bool = False) -> Any:
    settings = REGULAR | {"model.changes": {"options": options}} | ({"model.head": "segformer"} if segments else {})
    recipe = load_recipe("composites" if segments else "imagenet_hrvit", model, list((settings | more).items()))
    return make_model(recipe, 10)[0].train()


@pytest.mark.parametrize("segments", [False, True])
def test_a_model_of_timm_has_the_regularisation_of_the_recipe(segments: bool) -> None:
    model = made("timm:resnet18", NARROW, {}, segments)
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.7 * block / 7 for block in range(1, 8)])  # 8 blocks; the first has none
    assert (model.head.drop.p if segments else model.drop_rate) == 0.5
    runs: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, *_: runs.append(module))
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    assert max(map(runs.count, runs)) == 2, "activations are computed again in the backward pass"


def test_a_segmenter_decays_and_scales_the_parameters_that_timm_does() -> None:
    """Swin: the tables of positions have no decay, and rates fall by timm's layers from the decoder down."""
    options: dict[str, Any] = {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 2]}
    name = "swin_tiny_patch4_window7_224"
    model = build_network(TimmConfig(f"timm:{name}", 5, head="segformer", options=options))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.05, layer_decay=0.5)
    decay = {names[id(each)]: group["weight_decay"] for group in groups for each in group["params"]}
    tables = {name for name in decay if name.endswith("relative_position_bias_table")}
    kernels = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    assert len(tables) == 5 and {name for name, value in decay.items() if value} == kernels
    scales = {names[id(each)]: group["lr_scale"] for group in groups for each in group["params"]}
    whole = timm.create_model(name, **options)
    theirs = {id(each): name for name, each in whole.named_parameters()}
    for group in param_groups_layer_decay(whole, layer_decay=0.5):
        for each in group["params"]:
            match = theirs[id(each)]
            if match.startswith(("patch_embed.", "layers.")):
                ours = (
                    match.replace("layers.", "backbone.layers_") if match.startswith("layers.") else f"backbone.{match}"
                )
                assert scales.pop(ours) == group["lr_scale"], ours
    assert set(scales.values()) == {1.0} and all(name.startswith("head.") for name in scales)


def test_a_segmenter_names_its_layers_without_drawing_random_numbers() -> None:
    model: Any = build_network(TimmConfig("timm:resnet18", 5, head="segformer", options=NARROW))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert model.no_weight_decay() == set()
    layer = model.group_matcher()
    assert torch.equal(torch.get_rng_state(), before)
    order = ("conv1.weight", "layer1.0.conv1.weight", "layer1.1.conv1.weight", "layer4.1.bn2.weight")
    assert [layer(f"backbone.{name}") for name in order] == sorted({layer(f"backbone.{name}") for name in order})
    assert layer("head.classifier.weight") == float("inf")


def test_a_setting_that_a_model_of_timm_does_not_have_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"timm:dla46_c does not accept options.*'drop_path_rate'.*set to 0"):
        made("timm:dla46_c", {}, {"precision.gradient_checkpointing": False})
    with pytest.raises(ConfigError, match=r"gradient_checkpointing: timm:dla46_c does not support it; set it to false"):
        made("timm:dla46_c", {}, {"regularisation.drop_path": 0.0})
    with pytest.raises(ConfigError, match=r"options\.drop_path_rate has its own setting"):
        made("timm:resnet18", {"drop_path_rate": 0.1}, {})
