"""Models of timm in recipes have the recipe's regularisation, as HRViTs do."""

from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.assemble import make_model
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


def test_a_setting_that_a_model_of_timm_does_not_have_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"timm:dla46_c does not accept options.*'drop_path_rate'.*set to 0"):
        made("timm:dla46_c", {}, {"precision.gradient_checkpointing": False})
    with pytest.raises(ConfigError, match=r"gradient_checkpointing: timm:dla46_c does not support it; set it to false"):
        made("timm:dla46_c", {}, {"regularisation.drop_path": 0.0})
    with pytest.raises(ConfigError, match=r"options\.drop_path_rate has its own setting"):
        made("timm:resnet18", {"drop_path_rate": 0.1}, {})
