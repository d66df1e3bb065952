"""Properties of config fields: entries per branch, tables of names, bounds."""

from collections.abc import Mapping
from typing import Any

from hrvit_lab.parts import ATTENTION, FFNS, FUSION, HEAD, PATCH_EMBED, SHORTCUT, STEM

MAX_BRANCHES = 5


MAX_RATIO = 16


FINEST_STRIDE = 4


PER_BRANCH: dict[str, tuple[Any, ...]] = {
    "widths": (32, 64, 128, 256, 512),
    "head_dims": (32,) * 5,
    "window_sizes": (1, 2, 7, 7, 7),
    "mlp_ratios": (4.0,) * 5,
    "attention": ("cross_shaped",) * 5,
    "ffn": ("mixcfn",) * 5,
    "head_widths": (32, 64, 128, 256, 512),
}
"""Fields with one entry per branch, with their defaults: b1's entries for up to five branches."""


TABLES: dict[str, Mapping[str, Any]] = {
    "attention": ATTENTION,
    "ffn": FFNS,
    "shortcut": SHORTCUT,
    "patch_embed": PATCH_EMBED,
    "fusion": FUSION,
    "stem": STEM,
    "head": HEAD,
}
"""Fields that name a variant, with the table of valid names."""
