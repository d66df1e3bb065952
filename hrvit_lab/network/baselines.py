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
from dataclasses import dataclass, field
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
MAX_WIDTH = 4096
MAX_OPTIONS = 30
HEADS = (None, "segformer")
OWN_ARGUMENTS = (
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir",
    "scriptable", "exportable", "no_jit", "features_only", "out_indices", "output_stride",
    "num_classes", "in_chans", "img_size",
)  # fmt: skip
"""Arguments of ``timm.create_model`` that options must not set: files, and what other fields or the input size give."""


@dataclass(frozen=True)
class TimmConfig:
    """A timm model with random weights.

    Attributes:
        model: timm's name with the prefix ``timm:``, as in ``timm:resnet18``.
        num_classes: outputs of its classifier.
        in_chans: channels of the input image.
        name: a label.
        head: None: timm's classifier; "segformer": SegFormer's decoder on the maps with strides 4, 8, 16 and 32.
        segformer_width: channels of that decoder.
        options: further arguments of the model, as in ``{"channels": [16, 32, 64, 128]}``: numbers, texts, lists.

    Raises:
        ConfigError: (a ValueError) for a name that timm doesn't have (the message suggests similar ones), or a number
            out of range.
    """

    model: str
    num_classes: int = 1000
    in_chans: int = 3
    name: str = ""
    head: str | None = None
    segformer_width: int = 256
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        timm_name(self.model)
        for number, most in (("num_classes", MAX_CLASSES), ("in_chans", MAX_CHANNELS), ("segformer_width", MAX_WIDTH)):
            value = getattr(self, number)
            if type(value) is not int or not 1 <= value <= most:
                raise ConfigError(f"{number} = {value!r:.80} is invalid for {self.model}; use 1 to {most}")
        if self.head not in HEADS:
            raise ConfigError(f"head = {self.head!r:.80} is invalid for {self.model}; use segformer or none at all")
        object.__setattr__(self, "options", checked_options(self.options, self.model))

    @cached_property
    def id(self) -> str:
        """12 hex digits, equal for equal networks regardless of their names."""
        identity: dict[str, Any] = {"model": self.model, "num_classes": self.num_classes, "in_chans": self.in_chans}
        identity |= {"options": self.options} if self.options else {}
        identity |= {"head": self.head, "segformer_width": self.segformer_width} if self.head else {}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    def replace(self, /, **changes: Any) -> "TimmConfig":
        """A new config with some fields changed.

        Raises:
            ConfigError: for a field that only an HRViT has.
        """
        known = [each.name for each in dataclasses.fields(self)]
        if unknown := next((name for name in changes if name not in known), None):
            raise ConfigError(
                f"{self.model} has no field {unknown!r:.80}; of a timm model, only num_classes, in_chans, head, "
                "segformer_width and options can be set"
            )
        return dataclasses.replace(self, **changes)

    def check_resolution(self, resolution: int | tuple[int, int]) -> tuple[int, int]:
        """``(height, width)`` in pixels; the sizes that the model supports are only known when it runs."""
        return as_size(resolution)

    def to_dict(self) -> dict[str, Any]:
        """Plain strings and numbers; ``network_from_dict`` gives the same config back."""
        found = dataclasses.asdict(self)
        for key in () if self.head else ("head", "segformer_width"):
            del found[key]
        if not self.options:
            del found["options"]
        return found


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
    options = {**config.options, "in_chans": config.in_chans} | ({"img_size": resolution} if fixed else {})
    try:
        if config.head is None:
            return timm.create_model(name, num_classes=config.num_classes, **options)
        from hrvit_lab.network.timm_segmenter import TimmSegmenter

        return TimmSegmenter(name, config.num_classes, config.segformer_width, options)
    except Exception as error:  # timm's models raise different exceptions for arguments they do not support
        if isinstance(error, ConfigError) or not config.options:
            raise
        reason = f"{type(error).__name__}: {error!s:.200}"
        raise ConfigError(f"{config.model} does not accept options {dict(config.options)!s:.200}: {reason}") from error


def checked_options(options: Any, model: str) -> Mapping[str, Any]:
    """The options of a timm model, if they are plain values and set none of ``OWN_ARGUMENTS``.

    Raises:
        ConfigError: naming the option and the remedy.
    """
    if not isinstance(options, Mapping) or len(options) > MAX_OPTIONS:
        raise ConfigError(
            f"options of {model} must be a mapping of at most {MAX_OPTIONS} arguments, not {options!r:.80}"
        )
    for key, value in options.items():
        if not isinstance(key, str) or not key.isidentifier() or key in OWN_ARGUMENTS:
            raise ConfigError(f"options.{key!s:.80} of {model} cannot be set here; use an argument of timm's model")
        values = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(one, int | float | str) for one in values):
            raise ConfigError(
                f"options.{key:.80} = {value!r:.80} of {model} is invalid; use numbers, texts or lists of them"
            )
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}


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
