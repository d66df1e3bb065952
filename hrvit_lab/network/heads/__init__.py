"""Heads: classification and segmentation from the maps of all branches, and a table from names to them."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from hrvit_lab.network.heads.classifier import ClassifierHead
from hrvit_lab.network.heads.pool import PoolHead
from hrvit_lab.network.heads.segformer import SegFormerHead
from hrvit_lab.network.heads.upernet import UperNetHead

HEAD: dict[str, Callable[[Sequence[int], Sequence[int], int, int, bool, float], nn.Module] | None] = {
    "classifier": ClassifierHead,
    "pool": PoolHead,
    "norm_pool": partial(PoolHead, norm=True),
    "segformer": SegFormerHead,
    "upernet": UperNetHead,
    "none": None,
}
"""``(dims, head_widths, width, num_classes, pyramid, drop_rate)`` → head; None: the network returns the branches' maps.

``width`` is the config's field given by the head's row in ``hrvit_lab.parts.HEAD``. A head has ``classifier``,
``num_features`` (channels before it), ``reset(num_classes)`` and ``forward(*maps, pre_logits)``.
"""

__all__ = ["HEAD", "ClassifierHead", "PoolHead", "SegFormerHead", "UperNetHead"]
