"""The presets under their names in timm's registry, so that ``timm.create_model("hrvit_b1")`` and timm's scripts work.

No pretrained weights are published with a licence that lets us host them; ``hrvit_lab.load_published`` reads a
checkpoint that the user has.
"""

import sys
from collections.abc import Callable
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from hrvit_lab.config import PRESETS, ConfigError
from hrvit_lab.model import HRViT, create_model


def _pretrained_cfg() -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.conv1",
        "classifier": "head.classifier",
        "origin_url": "https://arxiv.org/abs/2111.01236",
    }


default_cfgs = generate_default_cfgs({name: _pretrained_cfg() for name in PRESETS})


def _entrypoint(name: str) -> Callable[..., HRViT]:
    def entrypoint(pretrained: bool = False, **options: Any) -> HRViT:
        if pretrained:
            raise ConfigError(
                f"{name} has no pretrained weights to download; use load_published(model, your_checkpoint)"
            )
        branches = PRESETS[name].num_branches
        features = {"out_indices": tuple(range(branches)), "feature_cls": "getter"}

        def make(device: Any = None, dtype: Any = None, global_pool: str = "avg", **changes: Any) -> HRViT:
            if global_pool != "avg":
                raise ConfigError(f"global_pool = {global_pool!r} is not supported; use 'avg'")
            return create_model(name, **changes).to(device=device, dtype=dtype)

        return build_model_with_cfg(make, name, pretrained, feature_cfg=features, **options)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = __name__
    entrypoint.__doc__ = f"``{name}``: see ``hrvit_lab.PRESETS``."
    return entrypoint


for _name in PRESETS:
    setattr(sys.modules[__name__], _name, register_model(_entrypoint(_name)))
