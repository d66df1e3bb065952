"""Register the presets and the published segmentation networks with timm, so that ``timm.create_model("hrvit_b1")``
and timm's scripts work.

Trained weights that ship with the package have a tag, as in ``hrvit_nano.fashion_mnist``. The licence of the published
weights does not permit hosting them; ``hrvit_lab.load_checkpoint`` reads local files.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from hrvit_lab.config import PRESETS, SEGMENTERS, ConfigError, HRViTConfig, preset, shipped
from hrvit_lab.config.shipped import Shipped

if TYPE_CHECKING:
    from hrvit_lab.network.model import HRViT

NETWORKS = PRESETS | SEGMENTERS
ORIGINS = {"mit": "2105.15203", "cswin": "2107.00652"}
"""arXiv papers of other families, by the first part of their names."""


def _pretrained_cfg(config: HRViTConfig) -> dict[str, Any]:
    """timm's description of an untrained network: its preprocessing and the names of its first and last layers."""
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


def _shipped_cfg(network: Shipped) -> dict[str, Any]:
    """timm's description of a trained network, with the file of its weights and the names of its classes."""
    return _pretrained_cfg(preset(network.name)) | {
        "file": str(network.weights),
        "num_classes": len(network.classes),
        "input_size": (3, *network.resolution_px),
        "crop_pct": network.crop_fraction,
        "interpolation": network.interpolation,
        "mean": network.mean,
        "std": network.std,
        "label_names": network.classes,
    }


# A star marks the default for a name without a tag: the untrained preset. Entries with weights come first.
_cfgs: dict[str, Any] = {name: _shipped_cfg(network) for name, network in shipped().items()}
_cfgs |= {f"{name}.*": _pretrained_cfg(config) for name, config in NETWORKS.items()}
default_cfgs = generate_default_cfgs(_cfgs)


def _entrypoint(name: str) -> Callable[..., "HRViT"]:
    def entrypoint(pretrained: bool = False, **options: Any) -> "HRViT":
        from hrvit_lab.network.build import create_model, shipped_weights  # timm may be imported by a network module
        from hrvit_lab.network.checkpoints import load_checkpoint

        tag = options.get("pretrained_cfg") or ""
        ours = isinstance(tag, str)  # otherwise a description of the user's own weights, which timm loads
        tagged = f"{name}.{tag}" if ours and tag else name
        weights = shipped_weights(tagged) if ours and (tag or pretrained) else None
        branches = (preset(tagged) if tagged in shipped() else NETWORKS[name]).num_branches
        features = {"out_indices": tuple(range(branches)), "feature_cls": "getter"}

        def make(device: Any = None, dtype: Any = None, global_pool: str = "avg", **changes: Any) -> "HRViT":
            if global_pool != "avg":
                raise ConfigError(f"global_pool = {global_pool!r} is not supported; use 'avg'")
            return create_model(tagged if tagged in shipped() else name, **changes).to(device=device, dtype=dtype)

        model = build_model_with_cfg(make, name, pretrained and not ours, feature_cfg=features, **options)
        if pretrained and weights is not None:
            load_checkpoint(model, weights, adapt=True)
        return model

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = __name__
    table = "SEGMENTERS" if name in SEGMENTERS else "PRESETS"
    entrypoint.__doc__ = f"``{name}``: see ``hrvit_lab.config.{table}``."
    return entrypoint


for _name in NETWORKS:
    setattr(sys.modules[__name__], _name, register_model(_entrypoint(_name)))
