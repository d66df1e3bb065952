"""Register the presets and the published segmentation networks with timm, so that ``timm.create_model("hrvit_b1")``
and timm's scripts work.

The licence of the published weights does not permit hosting them; ``hrvit_lab.load_checkpoint`` reads local files.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from hrvit_lab.config import PRESETS, SEGMENTERS, ConfigError, HRViTConfig

if TYPE_CHECKING:
    from hrvit_lab.network.model import HRViT

NETWORKS = PRESETS | SEGMENTERS
ORIGINS = {"mit": "2105.15203", "cswin": "2107.00652"}
"""arXiv papers of other families, by the first part of their names."""


def _pretrained_cfg(config: HRViTConfig) -> dict[str, Any]:
    segments = config.name in SEGMENTERS
    classifiers = ("head.classifier", "head.auxiliary.classifier") if config.head == "upernet" else "head.classifier"
    return {
        "url": "",
        "num_classes": config.num_classes,
        "input_size": (3, 512, 512) if segments else (3, 224, 224),
        "crop_pct": 1.0 if segments else 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.conv1",
        "classifier": classifiers,
        "origin_url": f"https://arxiv.org/abs/{ORIGINS.get(config.name.partition('_')[0], '2111.01236')}",
    }


default_cfgs = generate_default_cfgs({name: _pretrained_cfg(config) for name, config in NETWORKS.items()})


def _entrypoint(name: str) -> Callable[..., "HRViT"]:
    def entrypoint(pretrained: bool = False, **options: Any) -> "HRViT":
        if pretrained:
            raise ConfigError(
                f"{name} has no pretrained weights to download; use load_checkpoint(model, your_checkpoint)"
            )
        branches = NETWORKS[name].num_branches
        features = {"out_indices": tuple(range(branches)), "feature_cls": "getter"}

        def make(device: Any = None, dtype: Any = None, global_pool: str = "avg", **changes: Any) -> "HRViT":
            if global_pool != "avg":
                raise ConfigError(f"global_pool = {global_pool!r} is not supported; use 'avg'")
            from hrvit_lab.network.build import create_model  # timm may be imported by a part of the network

            return create_model(name, **changes).to(device=device, dtype=dtype)

        return build_model_with_cfg(make, name, pretrained, feature_cfg=features, **options)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = __name__
    table = "SEGMENTERS" if name in SEGMENTERS else "PRESETS"
    entrypoint.__doc__ = f"``{name}``: see ``hrvit_lab.config.{table}``."
    return entrypoint


for _name in NETWORKS:
    setattr(sys.modules[__name__], _name, register_model(_entrypoint(_name)))
