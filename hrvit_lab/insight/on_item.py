"""Whether a token attends to the item that it lies on: attention on the item against the item's share of the window."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.attention import BlockAttention
from hrvit_lab.insight.heads import blocks
from hrvit_lab.insight.places import BlockPlace


class OnItem(NamedTuple):
    """Attention of one block in one image. Means over all heads, and over all tokens that lie on an item.

    Attributes:
        place: of the block.
        attended: share of the attention that is on the item under the token, 0 to 1.
        chance: the same share if the token attended equally to everything in its window.
        tokens: that lie on an item. Without any, the shares are NaN.
    """

    place: BlockPlace
    attended: float
    chance: float
    tokens: int


def attention_on_item(one: BlockAttention, items_HW: NDArray[np.integer]) -> OnItem:
    """Measure the attention of one block.

    A token lies on the item at the centre of its pixels. A key that is partly on the item counts by its share of
    pixels; class tokens are on no item.

    Args:
        items_HW: the number of the item at each pixel of the image, 0 for background.
    Raises:
        ConfigError: if the items are not of the image's size.
    """
    if items_HW.shape != one.image:
        raise ConfigError(f"items of shape {items_HW.shape} for an image of shape {one.image}; give one for each pixel")
    heads, stride, (H, W) = one.heads, one.place.stride, one.image
    items = torch.from_numpy(items_HW.astype(np.int64))
    down, right = (
        (torch.arange(number) * side + side // 2).clamp(max=length - 1)
        for number, side, length in zip(one.size, stride, (H, W), strict=True)
    )
    under_n = items[down][:, right].flatten().to(heads.q_hnd.device)  # the item under each token
    keys = stride[0] * heads.cell[0], stride[1] * heads.cell[1]
    on_IHW = F.one_hot(items).permute(2, 0, 1).double()
    share_Im = F.avg_pool2d(on_IHW, keys, ceil_mode=True)[:, : heads.key_size[0], : heads.key_size[1]].flatten(1)
    share_Im = F.pad(share_Im, (heads.prefix, 0)).to(heads.q_hnd.device)
    under_n = F.pad(under_n, (heads.prefix, 0))
    attended = chance = torch.zeros((), dtype=torch.float64)
    for block in blocks(heads):
        own_Nn = under_n[block.queries]
        share_Nnm = share_Im[own_Nn[:, :, None], block.keys[:, None]] * (own_Nn > 0)[:, :, None]
        attended = attended + torch.einsum("Nhnm,Nnm->", block.weights.double(), share_Nnm).cpu()
        chance = chance + block.weights.shape[1] * share_Nnm.mean(2).sum().cpu()
    tokens = int((under_n > 0).sum())
    queries = tokens * one.num_heads or float("nan")
    return OnItem(one.place, float(attended / queries), float(chance / queries), tokens)
