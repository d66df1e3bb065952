"""The network's building blocks, and tables from names to them.

Blocks take flat arguments and never a config. ``hrvit_lab.parts`` has their closed-form costs under the same names.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from hrvit_lab.network.blocks.attend import attend, attention_map, use_explicit_attention
from hrvit_lab.network.blocks.attention import Attention
from hrvit_lab.network.blocks.block import Block, ServedBlock
from hrvit_lab.network.blocks.cross_shaped import CrossShaped
from hrvit_lab.network.blocks.cross_shaped_qkv import CrossShapedQKV
from hrvit_lab.network.blocks.cswin import CSWin
from hrvit_lab.network.blocks.depthwise_conv import DepthwiseConv
from hrvit_lab.network.blocks.des import DES
from hrvit_lab.network.blocks.dilated_window import DilatedWindowAttention
from hrvit_lab.network.blocks.fusion import Fusion, paths_fusion
from hrvit_lab.network.blocks.global_attention import GlobalAttention
from hrvit_lab.network.blocks.hrformer_ffn import HRFormerFFN
from hrvit_lab.network.blocks.identity import Unmixed
from hrvit_lab.network.blocks.linear_attention import LinearAttention
from hrvit_lab.network.blocks.mixcfn import MixCFN
from hrvit_lab.network.blocks.mixffn import MixFFN
from hrvit_lab.network.blocks.mlp import MLP
from hrvit_lab.network.blocks.patch_embed import DensePatchEmbed, EfficientPatchEmbed, no_patch_embed
from hrvit_lab.network.blocks.shifted_window import shifted_window_attention
from hrvit_lab.network.blocks.shortcut import LinearShortcut, NoShortcut
from hrvit_lab.network.blocks.spatial_reduction import SpatialReductionAttention
from hrvit_lab.network.blocks.stage import PyramidStage, Stage
from hrvit_lab.network.blocks.stem import OneConvStem, TwoConvStem
from hrvit_lab.network.blocks.swiglu import SwiGLU
from hrvit_lab.network.blocks.weighted_sum import WeightedSum, weighted_sum
from hrvit_lab.network.blocks.window import WindowAttention
from hrvit_lab.parts.fusion import dense_sources, late_sources, sparse_sources

ATTENTION: dict[str, Callable[[int, int, int], nn.Module]] = {
    "cross_shaped": CrossShaped,
    "cross_shaped_qkv": CrossShapedQKV,
    "cswin": CSWin,
    "window": WindowAttention,
    "shifted_window": shifted_window_attention,
    "dilated_window": DilatedWindowAttention,
    "spatial_reduction": SpatialReductionAttention,
    "global": GlobalAttention,
    "linear": LinearAttention,
    "depthwise_conv": DepthwiseConv,
    "identity": Unmixed,
}
"""``(dim, head_dim, window_size)`` → mixer of an ``Attention``."""

FFNS: dict[str, Callable[[int, float], nn.Module] | None] = {
    "mixcfn": MixCFN,
    "mixcfn_3_7": partial(MixCFN, kernels=(3, 7)),
    "mixcfn_5_7": partial(MixCFN, kernels=(5, 7)),
    "mixffn": MixFFN,
    "mlp": MLP,
    "swiglu": SwiGLU,
    "swiglu_conv": partial(SwiGLU, conv=True),
    "hrformer": HRFormerFFN,
    "none": None,
}
"""``(dim, mlp_ratio)`` → feed-forward network; None: no feed-forward network."""

SHORTCUT: dict[str, Callable[[int], nn.Module]] = {
    "des": DES,
    "linear": LinearShortcut,
    "none": NoShortcut,
}
"""``(dim,)`` → shortcut parallel to attention; it adds its output to that of attention."""

PATCH_EMBED: dict[str, Callable[[int, int, int], nn.Module]] = {
    "efficient": EfficientPatchEmbed,
    "dense": DensePatchEmbed,
    "none": no_patch_embed,
}
"""``(c_in, dim, stride)`` → patch embedding at the start of a branch in a stage."""

FUSION: dict[str, Callable[[tuple[int, ...], tuple[int, ...], str, bool], nn.Module]] = {
    "dense": partial(paths_fusion, dense_sources),
    "sparse": partial(paths_fusion, sparse_sources),
    "late": partial(paths_fusion, late_sources),
    "weighted_sum": weighted_sum,
}
"""``(dims_in, dims_out, upsample, last)`` → cross-resolution fusion; ``last``: whether it is the network's last one."""

STEM: dict[str, Callable[[int, int], nn.Module]] = {
    "two_conv": TwoConvStem,
    "conv7": partial(OneConvStem, kernel_size=7, padding=3),
    "conv7_cswin": partial(OneConvStem, kernel_size=7, padding=2),
    "patchify": partial(OneConvStem, kernel_size=4, padding=0),
}
"""``(in_chans, stem_width)`` → stem."""

__all__ = [
    "ATTENTION",
    "DES",
    "FFNS",
    "FUSION",
    "MLP",
    "PATCH_EMBED",
    "SHORTCUT",
    "STEM",
    "Attention",
    "Block",
    "CSWin",
    "CrossShaped",
    "CrossShapedQKV",
    "DensePatchEmbed",
    "DepthwiseConv",
    "DilatedWindowAttention",
    "EfficientPatchEmbed",
    "Fusion",
    "GlobalAttention",
    "HRFormerFFN",
    "LinearAttention",
    "LinearShortcut",
    "MixCFN",
    "MixFFN",
    "NoShortcut",
    "OneConvStem",
    "PyramidStage",
    "ServedBlock",
    "SpatialReductionAttention",
    "Stage",
    "SwiGLU",
    "TwoConvStem",
    "Unmixed",
    "WeightedSum",
    "WindowAttention",
    "attend",
    "attention_map",
    "use_explicit_attention",
]
