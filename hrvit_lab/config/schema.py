"""The configuration of a variant: frozen, validated, hashable, with presets and pure transforms.

A config says what network is built and nothing about how it is trained or measured. Fields per branch
(``widths``, ``attention``, …) are tuples with one entry per branch, finest first; a single value applies to all.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from numbers import Integral
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from hrvit_lab.config.fields import FINEST_STRIDE, MAX_BRANCHES, MAX_RATIO, PER_BRANCH, TABLES
from hrvit_lab.config.identity import identity
from hrvit_lab.config.text import one_sentence, shortened
from hrvit_lab.config.yaml_text import read_json, read_yaml, write_yaml
from hrvit_lab.errors import ConfigError, suggest
from hrvit_lab.parts import ATTENTION, FFNS, HEAD, SHORTCUT, STEM
from hrvit_lab.parts.ops import halved


def _name_of(field: str) -> BeforeValidator:
    """Validator: the value is a name in the field's table."""

    def known(value: Any) -> Any:
        if not isinstance(value, str) or value not in TABLES[field]:
            raise ValueError(f"unknown variant; {suggest(value, TABLES[field])}")
        return value

    return BeforeValidator(known)


Count = Annotated[int, Field(strict=True, ge=1)]


Rate = Annotated[float, Field(ge=0, lt=1)]


Switch = Annotated[bool, Field(strict=True)]


class HRViTConfig(BaseModel):
    """One variant of HRViT. The defaults are the published b1's.

    Attributes:
        name: a label; it does not affect the network.
        depths: number of blocks, ``depths[stage][branch]``; the number of branches per stage is 1 to 5 and does not
            decrease.
        topology: ``"parallel"``: parallel branches, fused before every stage; ``"pyramid"``: sequential scales; its
            only stage lists the depth of every scale, and the first scale has the stem's width.
        widths: channels per branch.
        head_dims: channels per attention head, per branch; a smaller width (or half width, where halves attend
            separately) is one head.
        window_sizes: size of the attention windows in tokens, per branch: the width of a stripe, the side of a window
            (for dilated windows, the tokens along a side), or the side of the patches merged by spatial reduction;
            unused by ``global``, ``linear`` and variants without attention.
        mlp_ratios: hidden width divided by width of the feed-forward network, per branch.
        attention, ffn: variant names, per branch.
        parallel_conv, attn_activation, attn_batch_norm: additions to the attention: a parallel convolution of the
            values, a Hardswish before the output projection, a BatchNorm initialized to zero after it.
        shortcut, patch_embed, fusion, stem, head: variant names.
        upsample: interpolation in the fusions, ``"nearest"`` or ``"bilinear"``.
        branch_norm: a LayerNorm at the end of every branch of a stage.
        norm_eps: epsilon of the LayerNorms.
        stem_width: output channels of the stem.
        in_chans: channels of the input image.
        num_classes: outputs of the head; 0: no classifier.
        head_widths: inner width of the classification head's bottleneck, per branch.
        head_features: channels before the classifier of the head ``"classifier"``.
        segformer_width, upernet_width: channels of these heads.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout after the attention's output projection.
        drop_path_rate: stochastic depth of the last block; linear from 0 at the first.
        grad_checkpointing: recompute attention, FFN and the head's bottlenecks in the backward pass.

    Raises:
        ConfigError: (a ValueError) for an invalid field, with its value and the remedy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    name: str = Field(default="", max_length=100)
    topology: Literal["parallel", "pyramid"] = "parallel"
    depths: tuple[tuple[Annotated[Count, Field(le=64)], ...], ...] = (
        (1,), (1, 1), (1, 1, 6), (1, 1, 6), (1, 1, 6, 2), (1, 1, 2, 2),
    )  # fmt: skip
    widths: tuple[Annotated[Count, Field(le=4096)], ...]
    head_dims: tuple[Annotated[Count, Field(le=1024)], ...]
    window_sizes: tuple[Annotated[Count, Field(le=1024)], ...]
    mlp_ratios: tuple[Annotated[float, Field(gt=0, le=MAX_RATIO)], ...]
    attention: tuple[Annotated[str, _name_of("attention")], ...]
    ffn: tuple[Annotated[str, _name_of("ffn")], ...]
    parallel_conv: Switch = True
    attn_activation: Switch = True
    attn_batch_norm: Switch = True
    shortcut: Annotated[str, _name_of("shortcut")] = "des"
    patch_embed: Annotated[str, _name_of("patch_embed")] = "efficient"
    fusion: Annotated[str, _name_of("fusion")] = "dense"
    upsample: Literal["nearest", "bilinear"] = "nearest"
    branch_norm: Switch = True
    norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    stem: Annotated[str, _name_of("stem")] = "two_conv"
    head: Annotated[str, _name_of("head")] = "classifier"
    stem_width: Annotated[Count, Field(le=1024)] = 64
    in_chans: Annotated[Count, Field(le=64)] = 3
    num_classes: Annotated[int, Field(strict=True, ge=0, le=100_000)] = 1000
    head_widths: tuple[Annotated[Count, Field(le=2048)], ...]
    head_features: Annotated[Count, Field(le=16384)] = 2048
    segformer_width: Annotated[Count, Field(le=4096)] = 256
    upernet_width: Annotated[Count, Field(le=4096)] = 512
    drop_rate: Rate = 0.0
    proj_drop_rate: Rate = 0.0
    drop_path_rate: Rate = 0.0
    grad_checkpointing: Switch = False

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ConfigError(one_sentence(error, type(self).model_fields)) from None

    # -- validation -----------------------------------------------------------------------------------------------

    @model_validator(mode="before")
    @classmethod
    def _every_branch(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Expand a single value to all branches; without a value, use b1's."""
        depths = fields.get("depths", cls.model_fields["depths"].default)
        try:
            branches = max(len(stage) for stage in depths)
        except (TypeError, ValueError):
            branches = MAX_BRANCHES  # the field's own validator reports the error
        entries = {}
        for field, defaults in PER_BRANCH.items():
            value = fields.get(field, defaults[:branches])
            scalar = isinstance(value, str | int | float)
            entries[field] = (value,) * min(branches, MAX_BRANCHES) if scalar else value
        return fields | entries

    @field_validator("depths")
    @classmethod
    def _growing(cls, depths: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        if not 1 <= len(depths) <= 32:
            raise ValueError(f"has {len(depths)} stages; give 1 to 32")
        previous = 1
        for s, stage in enumerate(depths):
            if not 1 <= len(stage) <= MAX_BRANCHES:
                raise ValueError(f"has {len(stage)} branches in stage {s}; give 1 to {MAX_BRANCHES}")
            if len(stage) < previous:
                raise ValueError(
                    f"has fewer branches in stage {s} ({len(stage)}) than in the stage before ({previous}); "
                    "give every stage at least as many branches as the stage before"
                )
            previous = len(stage)
        return depths

    @model_validator(mode="after")
    def _branches_agree(self) -> Self:
        for field in PER_BRANCH:
            given = len(getattr(self, field))
            if given != self.num_branches:
                raise ValueError(
                    f"{field} = {getattr(self, field)!r} has {given} entries for {self.num_branches} branches; "
                    f"give {self.num_branches} entries, or a single value for all"
                )
        if self.topology == "pyramid":
            self._check_pyramid()
        if reason := STEM[self.stem].width_rule(self.stem_width):
            raise ValueError(f"stem_width = {self.stem_width}: {reason}; use {self.stem_width + 1}")
        for branch, width in enumerate(self.widths):
            if refusal := self.width_refusal(branch, width):
                near = " or ".join(map(str, nearest(width, self.width_accepts(branch)))) or "another width"
                raise ValueError(f"widths[{branch}] = {width}{refusal}; use {near}{self._or_instead(branch)}")
        return self

    def _check_pyramid(self) -> None:
        if len(self.depths) != 1:
            raise ValueError(
                f"depths = {shortened(self.depths)} has {len(self.depths)} stages, but a pyramid has one; "
                "give the depth of every scale, as in [[2, 2, 2, 2]]"
            )
        if self.stem_width != self.widths[0]:
            raise ValueError(
                f"stem_width = {self.stem_width} differs from widths[0] = {self.widths[0]}, but the first scale of a "
                f"pyramid reads the stem's output; use {self.widths[0]}"
            )

    def width_refusal(self, branch: int, width: int) -> str | None:
        """The reason why a width is invalid for this branch, with the other field involved; None if it is valid."""
        reasons = ((beside, rule(width)) for beside, rule in self._width_rules(branch))
        return next((f"{beside}: {reason}" for beside, reason in reasons if reason), None)

    def _width_rules(self, branch: int) -> list[tuple[str, Callable[[int], str | None]]]:
        """The rules that a width of this branch must meet, each with the other field that it depends on."""
        head_dim, ratio = self.head_dims[branch], self.mlp_ratios[branch]
        attends, feeds = ATTENTION[self.attention[branch]].width_rule, FFNS[self.ffn[branch]].width_rule
        rules: list[tuple[str, Callable[[int], str | None]]] = [
            (f" with head_dims[{branch}] = {head_dim}", lambda width: attends(width, head_dim)),
            (f" with shortcut = {self.shortcut!r}", SHORTCUT[self.shortcut].width_rule),
            (f" with mlp_ratios[{branch}] = {ratio:g}", lambda width: feeds(width, ratio)),
        ]
        opens = self.topology == "pyramid" and branch == 0  # reads the stem's output
        return [("", STEM[self.stem].width_rule), *rules] if opens else rules

    def _or_instead(self, branch: int) -> str:
        """The nearest head dim or integer ratio for which the width of this branch is valid, if there is one."""
        width, head_dim, ratio = self.widths[branch], self.head_dims[branch], self.mlp_ratios[branch]
        attends, feeds = ATTENTION[self.attention[branch]].width_rule, FFNS[self.ffn[branch]].width_rule
        if attends(width, head_dim):
            others = nearest(head_dim, lambda dim: attends(width, dim) is None)
            return f" there, or head_dims[{branch}] = {' or '.join(map(str, others))}" if others else ""
        if feeds(width, ratio):
            whole = [other for other in range(1, MAX_RATIO + 1) if feeds(width, other) is None]
            return f" there, or mlp_ratios[{branch}] = {min(whole, key=lambda r: abs(r - ratio))}" if whole else ""
        return ""

    def width_accepts(self, branch: int) -> Callable[[int], bool]:
        rules = [rule for _, rule in self._width_rules(branch)]
        return lambda width: not any(rule(width) for rule in rules)

    # -- properties ----------------------------------------------------------------------------------------------

    @property
    def num_branches(self) -> int:
        """Branches of the last stage."""
        return len(self.depths[-1])

    @property
    def head_channels(self) -> int:
        """The width of the head, e.g. ``segformer_width``; 0 for a head without one."""
        field = HEAD[self.head].width_field
        return getattr(self, field) if field else 0

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per token, per branch."""
        return tuple(FINEST_STRIDE * 2**branch for branch in range(self.num_branches))

    @property
    def drop_path_rates(self) -> tuple[tuple[float, ...], ...]:
        """Stochastic depth of block ``j`` in stage ``s``, ``[s][j]``, shared by the stage's branches.

        A pyramid's scales are its stages.
        """
        lengths = self.depths[0] if self.topology == "pyramid" else [max(stage) for stage in self.depths]
        last = max(sum(lengths) - 1, 1)
        starts = [sum(lengths[:s]) for s in range(len(lengths))]
        return tuple(
            tuple(self.drop_path_rate * (start + j) / last for j in range(length))
            for start, length in zip(starts, lengths, strict=True)
        )

    def map_sizes(self, resolution: int | tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Height and width in tokens of every branch, at an input that ``check_resolution`` accepts."""
        height, width = resolution if isinstance(resolution, tuple) else as_size(resolution)
        size = halved(halved(height)), halved(halved(width))
        sizes = [size]
        for _ in range(1, self.num_branches):
            size = halved(size[0]), halved(size[1])
            sizes.append(size)
        return tuple(sizes)

    def check_resolution(self, resolution: int | tuple[int, int]) -> tuple[int, int]:
        """``(height, width)`` in pixels, if the network accepts it.

        Raises:
            ConfigError: if a side is smaller than the coarsest branch's stride.
        """
        height, width = resolution if isinstance(resolution, tuple) else as_size(resolution)
        if (
            height < self.strides[-1] or width < self.strides[-1]
        ):  # separate comparisons: sizes may be symbols in an export
            raise ConfigError(
                f"resolution = {height}×{width} is too small: the coarsest of {self.num_branches} branches has stride "
                f"{self.strides[-1]}; use at least {self.strides[-1]} pixels a side, or fewer branches"
            )
        return height, width

    @cached_property
    def id(self) -> str:
        """12 hex digits, equal for equal networks regardless of their names."""
        return hashlib.sha256(json.dumps(identity(self), sort_keys=True).encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        """A short summary; ``to_dict`` and ``to_yaml`` give all fields."""
        blocks = sum(map(sum, self.depths))
        widths = "-".join(map(str, self.widths))
        return (
            f"HRViTConfig({self.name!r}, {self.topology}, {self.num_branches} branches, widths {widths}, "
            f"{blocks} blocks, id {self.id})"
        )

    __str__ = __repr__

    # -- to and from text -----------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings; ``from_dict`` gives the same config back."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "HRViTConfig":
        """Validate a mapping of fields; ``preset`` may name the preset to start from.

        Raises:
            ConfigError: naming the field, its value and the remedy.
        """
        if not isinstance(fields, Mapping):
            raise ConfigError(f"a config must be a mapping of fields, not {type(fields).__name__}; see HRViTConfig")
        changes = {str(key): value for key, value in fields.items()}
        from hrvit_lab.config.presets import preset  # imported here: presets needs this class

        base = changes.pop("preset", None)
        return preset(base).replace(**changes) if base is not None else cls(**changes)

    def to_yaml(self) -> str:
        """YAML text; ``from_yaml`` gives the same config back."""
        return write_yaml(self.to_dict(), width=120)

    @classmethod
    def from_yaml(cls, text: str) -> "HRViTConfig":
        """Read a config (or ``preset:`` and changes) from YAML of at most 64 KiB.

        Raises:
            ConfigError: for invalid YAML (with its line) or an invalid config.
        """
        return cls.from_dict(read_yaml(text, "the config"))

    def to_json(self) -> str:
        """JSON text; ``from_json`` gives the same config back."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> "HRViTConfig":
        """Read a config (or ``preset`` and changes) from JSON of at most 64 KiB.

        Raises:
            ConfigError: for invalid JSON (with its line) or an invalid config.
        """
        return cls.from_dict(read_json(text, "the config"))

    def replace(self, /, **changes: Any) -> "HRViTConfig":
        """A new config with some fields changed, validated again."""
        return HRViTConfig(**(self.model_dump() | changes))


def as_size(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """Convert a resolution to ``(height, width)`` in pixels; one number means square. NumPy integers are accepted.

    Raises:
        ConfigError: if it is neither a positive integer nor two of them.
    """
    size = resolution if isinstance(resolution, tuple | list) else (resolution, resolution)
    if len(size) != 2 or not all(_is_whole(side) and side >= 1 for side in size):
        raise ConfigError(f"resolution = {shortened(resolution)} is not a size; use pixels, as in 224 or (224, 320)")
    return int(size[0]), int(size[1])


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def diff(a: HRViTConfig, b: HRViTConfig) -> dict[str, tuple[Any, Any]]:
    """Fields in which two configs differ, with both values."""
    return {
        field: (getattr(a, field), getattr(b, field))
        for field in HRViTConfig.model_fields
        if getattr(a, field) != getattr(b, field)
    }


def nearest(value: int, accepts: Callable[[int], bool], reach: int = 256) -> list[int]:
    """The nearest valid integers below and above ``value``, within ``reach``."""
    below = next((v for v in range(value - 1, max(0, value - reach), -1) if accepts(v)), None)
    above = next((v for v in range(value + 1, value + reach) if accepts(v)), None)
    return [v for v in (below, above) if v is not None]
