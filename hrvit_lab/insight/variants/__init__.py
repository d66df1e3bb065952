"""The attention map of every variant of ``hrvit_lab.network.blocks.ATTENTION``.

To add a variant: one function that reads its queries and keys and divides its tokens, and one line in `MAPS`; or the
reason why it has no map.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from hrvit_lab.insight.heads import Heads
from hrvit_lab.insight.variants import cross_shaped, tokens, windows


class Map(NamedTuple):
    """How to read a variant's attention.

    Attributes:
        projections: names of the mixer's modules whose outputs are needed.
        read: ``(mixer, outputs)`` → `Heads`; the outputs are those of one image, (H, W, C) each.
    """

    projections: tuple[str, ...]
    read: Callable[[nn.Module, Mapping[str, Tensor]], Heads]


MAPS: dict[str, Map | str] = {
    "cross_shaped": Map(("to_qv",), cross_shaped.cross_shaped),
    "cross_shaped_qkv": Map(("to_qkv",), cross_shaped.cross_shaped_qkv),
    "cswin": Map(("to_qkv",), cross_shaped.cross_shaped_qkv),
    "window": Map(("to_qkv",), windows.window),
    "shifted_window": Map(("to_qkv",), windows.window),
    "dilated_window": Map(("to_qkv",), windows.dilated_window),
    "spatial_reduction": Map(("to_q", "to_kv"), tokens.spatial_reduction),
    "global": Map(("to_qkv",), tokens.global_attention),
    "linear": Map(("to_qkv",), tokens.linear),
    "depthwise_conv": "a depthwise convolution has the same weights for every image, so it has no attention map",
    "identity": "identity mixes no tokens, so it has no attention map",
}
"""How to read the attention of a variant; or one sentence on why it has no map."""
