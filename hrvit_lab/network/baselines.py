"""Baselines: any timm model as a config that can be built and measured.

A `TimmConfig` can be used in place of an `HRViTConfig`: it has a name, an id, a number of classes, `replace` and
`to_dict`. `build_network` builds both.
"""

import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrvit_lab.config import ConfigError, HRViTConfig, as_size, own_name, suggest

if TYPE_CHECKING:
    from torch import nn

TIMM = "timm:"
MAX_CLASSES = 100_000
MAX_CHANNELS = 64


@dataclass(frozen=True)
class TimmConfig:
    """A timm model with random weights.

    Attributes:
        model: timm's name with the prefix ``timm:``, as in ``timm:resnet18``.
        num_classes: outputs of its classifier.
        in_chans: channels of the input image.
        name: a label.

    Raises:
        ConfigError: (a ValueError) for a name that timm doesn't have (the message suggests similar ones), or a number
            out of range.
    """

    model: str
    num_classes: int = 1000
    in_chans: int = 3
    name: str = ""

    def __post_init__(self) -> None:
        timm_name(self.model)
        for field, most in (("num_classes", MAX_CLASSES), ("in_chans", MAX_CHANNELS)):
            value = getattr(self, field)
            if type(value) is not int or not 1 <= value <= most:
                raise ConfigError(f"{field} = {value!r} is invalid for {self.model}; use 1 to {most}")

    @cached_property
    def id(self) -> str:
        """12 hex digits, equal for equal networks regardless of their names."""
        identity = {"model": self.model, "num_classes": self.num_classes, "in_chans": self.in_chans}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    def replace(self, /, **changes: Any) -> "TimmConfig":
        """A new config with some fields changed.

        Raises:
            ConfigError: for a field that only an HRViT has.
        """
        known = [field.name for field in dataclasses.fields(self)]
        if unknown := next((name for name in changes if name not in known), None):
            raise ConfigError(
                f"{self.model} has no field {unknown!r}; of a timm model, only num_classes and in_chans can be set"
            )
        return dataclasses.replace(self, **changes)

    def check_resolution(self, resolution: int | tuple[int, int]) -> tuple[int, int]:
        """``(height, width)`` in pixels; the sizes that the model supports are only known when it runs."""
        return as_size(resolution)

    def to_dict(self) -> dict[str, Any]:
        """Plain strings and numbers; ``network_from_dict`` gives the same config back."""
        return dataclasses.asdict(self)


NetworkConfig = HRViTConfig | TimmConfig
"""Any network that can be built, counted, timed and trained."""


def network_from_dict(fields: Mapping[str, Any]) -> NetworkConfig:
    """Convert a mapping with ``model: timm:NAME`` to a `TimmConfig`, and any other mapping to an `HRViTConfig`.

    If NAME is a network of this package, the result is also an `HRViTConfig`.

    Raises:
        ConfigError: naming the field, its value and the remedy.
    """
    if not isinstance(fields, Mapping) or "model" not in fields:
        return HRViTConfig.from_dict(fields)
    changes = {str(key): value for key, value in fields.items()}
    model = changes.pop("model")
    name = own_name(model) if isinstance(model, str) else model
    if name != model:
        return HRViTConfig.from_dict({"preset": name, **changes})
    return TimmConfig(name).replace(**changes)


def build_network(config: NetworkConfig, resolution: tuple[int, int] | None = None) -> "nn.Module":
    """Build the network that a config describes.

    Args:
        resolution: (height, width) in pixels for timm models with a fixed input size; None: timm's default.
    """
    if isinstance(config, HRViTConfig):
        from hrvit_lab.network.build import build

        return build(config)
    import timm

    name = timm_name(config.model)
    pretrained = timm.get_pretrained_cfg(name)
    fixed = resolution is not None and pretrained is not None and pretrained.fixed_input_size
    sized: dict[str, Any] = {"img_size": resolution} if fixed else {}
    return timm.create_model(name, num_classes=config.num_classes, in_chans=config.in_chans, **sized)


def timm_name(model: Any) -> str:
    """The timm name in ``timm:NAME``. Nothing is downloaded.

    Raises:
        ConfigError: if timm has no such model; suggests similar names.
    """
    if not isinstance(model, str) or not model.startswith(TIMM):
        raise ConfigError(
            f"model = {model!r:.80} is unknown; use {TIMM}NAME for a timm model, or preset: NAME for a preset"
        )
    name = model.removeprefix(TIMM)
    if name in _names_in_timm():
        return name
    import timm  # it also lists models that other packages registered

    known = timm.list_models()
    if name in known:
        return name
    near = difflib.get_close_matches(name[:100], known, n=3, cutoff=0.6)
    remedy = suggest(name, near) if near else "timm.list_models() lists the names"
    raise ConfigError(f"{model:.80}: timm has no such model; {remedy}")


@cache
def _names_in_timm() -> frozenset[str]:
    """The models in timm's source files. Reading them takes 0.1 s, and importing timm several seconds."""
    timm = find_spec("timm")
    if timm is None or timm.origin is None:
        return frozenset()
    files = (Path(timm.origin).parent / "models").rglob("*.py")
    pattern = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
    return frozenset(name for file in files for name in pattern.findall(file.read_text(encoding="utf-8")))
