"""Variants of the network's parts and their costs, in plain arithmetic; ``hrvit_lab.cost`` sums them over networks.

Each table lists the variants of one kind of part, with cost function, width rule and identity. Their modules have the
same names in ``hrvit_lab.network.blocks`` and ``hrvit_lab.network.heads``.
"""

from hrvit_lab.parts.attention import ATTENTION
from hrvit_lab.parts.ffn import FFNS
from hrvit_lab.parts.fusion import FUSION
from hrvit_lab.parts.head import HEAD
from hrvit_lab.parts.ops import Cost, Costs
from hrvit_lab.parts.patch_embed import PATCH_EMBED
from hrvit_lab.parts.shortcut import SHORTCUT
from hrvit_lab.parts.stem import STEM

__all__ = ["ATTENTION", "FFNS", "FUSION", "HEAD", "PATCH_EMBED", "SHORTCUT", "STEM", "Cost", "Costs"]
