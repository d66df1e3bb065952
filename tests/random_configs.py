"""Random configurations for property tests: valid ones that are small enough to run, and invalid ones with a known
wrong field."""

import random
from collections.abc import Callable
from typing import Any

from hrvit_lab.config import TABLES, HRViTConfig

FFNS, SHORTCUTS, PATCH_EMBEDS, FUSIONS, STEMS = (
    tuple(TABLES[field]) for field in ("ffn", "shortcut", "patch_embed", "fusion", "stem")
)

HALVED = ("cross_shaped", "cross_shaped_qkv", "cswin")
WHOLE = ("window", "shifted_window", "dilated_window", "spatial_reduction", "global", "linear")
HEADLESS = ("depthwise_conv", "identity")


def with_one_block_a_branch(config: HRViTConfig) -> HRViTConfig:
    """For tests of heads, or of all kinds of parts: quick to build and run."""
    return config.replace(depths=tuple(tuple(1 for _ in stage) for stage in config.depths))


def holds_heads(attention: str, width: int, head_dim: int) -> bool:
    """Whether the channels, or each half of them, are one head or a whole number of heads."""
    channels = width // 2 if attention in HALVED else width
    return attention in HEADLESS or channels <= head_dim or channels % head_dim == 0


def random_fields(rng: random.Random) -> dict[str, Any]:
    """Random fields that are valid by the specification's rules; the validation is not used."""
    branches = rng.randint(1, 5)
    pyramid = rng.random() < 0.2
    counts = [branches] if pyramid else sorted(rng.randint(1, branches) for _ in range(rng.randint(1, 3)))
    counts[-1] = branches
    head_dims = [rng.choice((2, 4, 8, 16)) for _ in range(branches)]
    attention = [rng.choice(("cross_shaped", *HALVED, *WHOLE, *HEADLESS)) for _ in range(branches)]
    # These factor for DES: p = 4 up to 28, then 8.
    factored = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56)
    widths = [
        rng.choice([w for w in factored if holds_heads(a, w, d)]) for a, d in zip(attention, head_dims, strict=True)
    ]
    return {
        "topology": "pyramid" if pyramid else "parallel",
        "depths": tuple(tuple(rng.choice((1, 1, 1, 2)) for _ in range(n)) for n in counts),
        "widths": tuple(widths),
        "head_dims": tuple(head_dims),
        "window_sizes": tuple(rng.randint(1, 9) for _ in range(branches)),
        "mlp_ratios": tuple(rng.choice((0.5, 1, 1.5, 2, 3)) for _ in range(branches)),
        "attention": tuple(attention),
        "ffn": tuple(rng.choice(("mixcfn", *FFNS)) for _ in range(branches)),
        "shortcut": rng.choice(("des", *SHORTCUTS)),
        "patch_embed": rng.choice(("efficient", *PATCH_EMBEDS)),
        "stem": rng.choice(("two_conv", *STEMS)),
        "fusion": rng.choice(FUSIONS),
        "upsample": rng.choice(("nearest", "bilinear")),
        "parallel_conv": rng.random() < 0.8,
        "attn_activation": rng.random() < 0.8,
        "attn_batch_norm": rng.random() < 0.8,
        "branch_norm": rng.random() < 0.8,
        "stem_width": widths[0] if pyramid else 2 * rng.randint(1, 16),
        "in_chans": rng.randint(1, 4),
        "num_classes": rng.choice((0, 2, 10)),
        "head": rng.choice(("classifier", "classifier", "pool", "norm_pool", "segformer", "upernet", "none")),
        "head_widths": tuple(rng.randint(1, 8) for _ in range(branches)),
        "head_features": rng.randint(1, 32),
        "segformer_width": rng.randint(1, 16),
        "upernet_width": rng.randint(1, 16),
        "drop_rate": rng.choice((0.0, 0.1)),
        "proj_drop_rate": rng.choice((0.0, 0.1)),
        "drop_path_rate": rng.choice((0.0, 0.2)),
        "grad_checkpointing": rng.random() < 0.2,
    }


def random_config(rng: random.Random) -> HRViTConfig:
    """A small valid config. Raises an error if the validation refuses it."""
    return HRViTConfig(**random_fields(rng))


def odd_resolution(rng: random.Random, config: HRViTConfig) -> tuple[int, int]:
    """Two different odd sides, at least as long as the coarsest stride."""
    low = config.strides[-1] | 1
    height = rng.randrange(low, low + 64, 2)
    return height, height + 2 * rng.randint(1, 16)


def _set(field: str, value: Any) -> Callable[[random.Random, dict[str, Any]], str]:
    def spoil(rng: random.Random, fields: dict[str, Any]) -> str:
        fields[field] = value
        return field

    return spoil


def _set_one(field: str, *values: Any) -> Callable[[random.Random, dict[str, Any]], str]:
    def spoil(rng: random.Random, fields: dict[str, Any]) -> str:
        entries = list(fields[field])
        entries[rng.randrange(len(entries))] = rng.choice(values)
        fields[field] = tuple(entries)
        return field

    return spoil


def _lengthen(field: str) -> Callable[[random.Random, dict[str, Any]], str]:
    def spoil(rng: random.Random, fields: dict[str, Any]) -> str:
        fields[field] = (*fields[field], fields[field][-1])
        return field

    return spoil


def _vanishing_branch(rng: random.Random, fields: dict[str, Any]) -> str:
    last = fields["depths"][-1]
    fields["depths"] = (*fields["depths"], (*last, 1)[: len(last)], last[:-1]) if len(last) > 1 else ((1, 1), (1,))
    return "depths"


def _unfactored(rng: random.Random, fields: dict[str, Any]) -> str:
    fields["shortcut"] = "des"
    return _set_one("widths", 34, 42, 70)(rng, fields)  # no k · p


def _odd_stem(rng: random.Random, fields: dict[str, Any]) -> str:
    fields["stem"] = "two_conv"
    fields["stem_width"] = 15
    return "stem_width"


def _no_hidden_channels(rng: random.Random, fields: dict[str, Any]) -> str:
    fields["ffn"] = rng.choice([name for name in FFNS if name != "none"])
    return _set_one("mlp_ratios", 0.01)(rng, fields)


def _no_halves(rng: random.Random, fields: dict[str, Any]) -> str:
    fields["attention"] = "cross_shaped"
    return _set_one("widths", 7, 9, 33)(rng, fields)


def _broken_head(rng: random.Random, fields: dict[str, Any]) -> str:
    fields["attention"], fields["head_dims"] = rng.choice(WHOLE), 16
    return _set_one("widths", 24, 40, 56)(rng, fields)


def _unknown_field(rng: random.Random, fields: dict[str, Any]) -> str:
    fields["window_sises"] = 7
    return "window_sises"


SPOILERS: tuple[Callable[[random.Random, dict[str, Any]], str], ...] = (
    _no_halves,
    _broken_head,
    _set_one("widths", 0, -8, 10**6, "wide", 8.5, None),
    _unfactored,
    _set_one("head_dims", 0, -1, "x"),
    _set_one("window_sizes", 0, -7, 1.5, "big"),
    _set_one("mlp_ratios", 0, -1, 1e9, float("nan")),
    _no_hidden_channels,
    _lengthen("widths"),
    _lengthen("head_dims"),
    _lengthen("window_sizes"),
    _lengthen("head_widths"),
    _vanishing_branch,
    _unknown_field,
    _set("depths", ()),
    _set("depths", ((1,), (1,) * 6)),
    _set("depths", ((0,),)),
    _set("depths", ((1,), ())),
    _set("depths", 3),
    _set("attention", "cross_shape"),
    _set("ffn", "mlpp"),
    _set("shortcut", ""),
    _set("fusion", 3),
    _set("stem", "none"),
    _set("head", "clasifier"),
    _set("patch_embed", None),
    _odd_stem,
    _set("in_chans", 0),
    _set("num_classes", -1),
    _set("num_classes", True),
    _set("drop_path_rate", 1.0),
    _set("drop_rate", -0.1),
    _set("head_features", 0),
    _set("segformer_width", 0),
    _set("upernet_width", 10**6),
)


def random_invalid_fields(rng: random.Random) -> tuple[dict[str, Any], str]:
    """Fields of which one is wrong, and its name."""
    fields = random_fields(rng)
    blamed = rng.choice(SPOILERS)(rng, fields)
    return fields, blamed
