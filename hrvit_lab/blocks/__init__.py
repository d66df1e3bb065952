"""The network's parts, one idea a file, and the tables that name them.

A part takes flat arguments and never a config. Under the same names ``hrvit_lab.cost`` holds their closed-form costs.
"""

from collections.abc import Callable

from torch import nn

from hrvit_lab.blocks.attend import attend, attention_map, use_explicit_attention
from hrvit_lab.blocks.block import Block
from hrvit_lab.blocks.cross_shaped import CrossShapedAttention
from hrvit_lab.blocks.des import DES
from hrvit_lab.blocks.fusion import DenseFusion
from hrvit_lab.blocks.mixcfn import MixCFN
from hrvit_lab.blocks.patch_embed import EfficientPatchEmbed
from hrvit_lab.blocks.stage import Stage
from hrvit_lab.blocks.stem import TwoConvStem

ATTENTION: dict[str, Callable[[int, int, int, float], nn.Module]] = {"cross_shaped": CrossShapedAttention}
"""``(dim, head_dim, window_size, proj_drop)`` → attention."""

FFNS: dict[str, Callable[[int, float], nn.Module]] = {"mixcfn": MixCFN}
"""``(dim, mlp_ratio)`` → feed-forward network."""

SHORTCUT: dict[str, Callable[[int], nn.Module]] = {"des": DES}
"""``(dim,)`` → shortcut beside attention, which adds itself onto it."""

PATCH_EMBED: dict[str, Callable[[int, int], nn.Module]] = {"efficient": EfficientPatchEmbed}
"""``(c_in, dim)`` → what opens a branch in a stage."""

FUSION: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], nn.Module]] = {"dense": DenseFusion}
"""``(dims_in, dims_out)`` → cross-resolution fusion."""

STEM: dict[str, Callable[[int, int], nn.Module]] = {"two_conv": TwoConvStem}
"""``(in_chans, stem_width)`` → stem."""

__all__ = [
    "ATTENTION",
    "DES",
    "FFNS",
    "FUSION",
    "PATCH_EMBED",
    "SHORTCUT",
    "STEM",
    "Block",
    "CrossShapedAttention",
    "DenseFusion",
    "EfficientPatchEmbed",
    "MixCFN",
    "Stage",
    "TwoConvStem",
    "attend",
    "attention_map",
    "use_explicit_attention",
]
