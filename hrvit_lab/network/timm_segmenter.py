"""Segmentation with a backbone of timm: its maps with strides 4, 8, 16 and 32, and SegFormer's decoder on them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import timm
from timm.models import group_parameters
from torch import Tensor, nn

from hrvit_lab.errors import ConfigError
from hrvit_lab.network.heads import SegFormerHead
from hrvit_lab.network.seeding import seeded

STRIDES = (4, 8, 16, 32)


class TimmSegmenter(nn.Module):
    """Logits at a quarter of the image's height and width; the caller upsamples them.

    Args:
        name: of a timm model that returns maps of features, such as ``resnet18``.
        num_classes: outputs for each pixel.
        width: channels that every map is projected to.
        options: further arguments of ``timm.create_model``; ``drop_rate`` is that of the decoder.

    Shape: (B, C, H, W) → (B, num_classes, H/4, W/4), rounded as the backbone rounds.

    Raises:
        ConfigError: if the model has no maps with these strides.
    """

    def __init__(self, name: str, num_classes: int, width: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        backbone = {key: value for key, value in options.items() if key != "drop_rate"}
        try:
            features: Any = timm.create_model(name, features_only=True, **backbone)
            strides = features.feature_info.reduction()
            places = [strides.index(stride) for stride in STRIDES]
        except (RuntimeError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"timm:{name} has no feature maps with strides 4, 8, 16 and 32, which head segformer needs; use a "
                "network such as timm:resnet18"
            ) from error
        self.name, self.options = name, backbone
        self.places = places
        self.backbone = features
        self.channels_last = getattr(features, "output_fmt", "NCHW") == "NHWC"  # of Swin, for example
        dims = [features.feature_info.channels()[place] for place in places]
        self.head = SegFormerHead(dims, (), width, num_classes, pyramid=True, drop_rate=options.get("drop_rate", 0.0))
        self.num_classes = num_classes

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the backbone's activations again in the backward pass, as timm's models do.

        Raises:
            AttributeError: or AssertionError, as for timm's models, if the backbone does not support it.
        """
        _inner(self.backbone).set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that timm exempts from weight decay, such as the position tables of Swin."""
        exempt: set[str] = getattr(self._whole(), "no_weight_decay", set)()
        return {ours for ours, key in self._keys().items() if key in set(map(_key, exempt))}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """The layer of a parameter by its name: timm's layers of the backbone, then the decoder.

        Raises:
            ConfigError: if timm does not name the layers of this backbone.
        """
        whole = self._whole()
        if not hasattr(whole, "group_matcher"):
            raise ConfigError(f"layer_decay: timm:{self.name} has no group_matcher to name its layers; remove it")
        layers = group_parameters(whole, whole.group_matcher(coarse=coarse), reverse=True)
        by_key = {_key(name): layer for name, layer in layers.items()}
        known = {ours: by_key[key] for ours, key in self._keys().items() if key in by_key}
        return lambda name: known.get(name, math.inf)

    def _whole(self) -> Any:
        """timm's own model, whose methods the extractor does not have. Random generators are not changed."""
        with seeded(0):
            return timm.create_model(self.name, num_classes=0, **self.options)

    def _keys(self) -> dict[str, str]:
        """The backbone's parameters: name here → key of the parameter in timm's model."""
        inner = _inner(self.backbone)
        names = {parameter: name for name, parameter in inner.named_parameters()}
        return {ours: _key(names[each]) for ours, each in self.named_parameters() if each in names}

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = self.backbone(x_BCHW)
        if self.channels_last:
            maps = [each.permute(0, 3, 1, 2) for each in maps]
        return self.head(*(maps[place] for place in self.places))


def _inner(features: Any) -> Any:
    """The model that timm's extractor wraps, or the extractor itself if it consists of the model's layers."""
    for name in ("model", "body"):
        if isinstance(wrapped := getattr(features, name, None), nn.Module):
            return wrapped
    return features


def _key(name: str) -> str:
    """Equal in a model and in timm's extractor, which writes ``layers_0`` in place of ``layers.0``."""
    return name.replace(".", "_")
