"""Closed-form costs of the network's parts, from arithmetic alone; ``ledger`` composes them as the network does.

Each table names the variants of one kind of part, with cost function, width rule and identity. The modules that
compute them stand under the same names in ``hrvit_lab.blocks`` and ``hrvit_lab.heads``.
"""

from hrvit_lab.cost.attention import ATTENTION
from hrvit_lab.cost.ffn import FFNS
from hrvit_lab.cost.fusion import FUSION
from hrvit_lab.cost.head import HEAD
from hrvit_lab.cost.ops import Cost, Costs
from hrvit_lab.cost.patch_embed import PATCH_EMBED
from hrvit_lab.cost.shortcut import SHORTCUT
from hrvit_lab.cost.stem import STEM

__all__ = ["ATTENTION", "FFNS", "FUSION", "HEAD", "PATCH_EMBED", "SHORTCUT", "STEM", "Cost", "Costs"]
