"""Attention in numbers: distance, entropy against its maximum, and how different the heads are."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrvit_lab.insight.attention import BlockAttention
from hrvit_lab.insight.heads import Heads, blocks, on_tokens, rows
from hrvit_lab.insight.places import BlockPlace

MAX_QUERIES = 256
"""Tokens that the diversity of heads is measured at; of larger maps, evenly spaced ones."""


@dataclass(frozen=True, eq=False)
class AttentionStatistics:
    """Numbers of one block's attention for one image. Means are over all tokens.

    Attributes:
        place: of the block.
        distance_px: mean distance between a token and what it attends to, weighted by attention, per head, in pixels
            of the image (arXiv 2010.11929, section 4.5).
        entropy_nats: mean entropy of the maps, per head.
        max_entropy_nats: the largest entropy that the windows allow, per head: that of equal weights, the logarithm of
            the number of keys in the window.
        head_diversity: mean total variation between the maps of two heads, from 0 (equal) to 1 (disjoint); NaN for one
            head. Heads with horizontal and with vertical stripes differ by construction.
    """

    place: BlockPlace
    distance_px: NDArray[Any]
    entropy_nats: NDArray[Any]
    max_entropy_nats: NDArray[Any]
    head_diversity: float

    @property
    def entropy_share(self) -> NDArray[Any]:
        """Entropy divided by its maximum, per head: 1 is uniform attention. NaN where a window has a single key."""
        possible = np.where(self.max_entropy_nats > 0, self.max_entropy_nats, np.nan)
        return self.entropy_nats / possible


def attention_statistics(one: BlockAttention) -> AttentionStatistics:
    """Distance, entropy and diversity of one block's attention."""
    heads = one.heads
    number, tokens = heads.q_hnd.shape[:2]
    centres_nx, keys_mx = _centres(heads, one.place.stride)
    sums = torch.zeros(3, number, dtype=torch.float64)
    for block in blocks(heads):
        weights_Nhnm = block.weights
        distances_Nnm = torch.cdist(centres_nx[block.queries], keys_mx[block.keys])
        distance_h = torch.einsum("Nhnm,Nnm->h", weights_Nhnm, distances_Nnm)
        entropy_h = torch.special.entr(weights_Nhnm).sum((0, 2, 3))
        possible_h = torch.full_like(entropy_h, block.queries.numel() * float(np.log(block.keys.shape[1])))
        sums[:, block.heads] += torch.stack((distance_h, entropy_h, possible_h)).double().cpu()
    distance, entropy, possible = (sums / tokens).numpy()
    return AttentionStatistics(one.place, distance, entropy, possible, _diversity(heads))


def _centres(heads: Heads, stride: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Centres of tokens and of what keys stand for, in pixels: (tokens, 2), (keys, 2)."""

    def grid(size: tuple[int, int], cell: tuple[int, int]) -> Tensor:
        axes = []
        for number, side, whole, pixels in zip(size, cell, heads.size, stride, strict=True):
            start = torch.arange(number) * side
            axes.append((start + (start + side).clamp(max=whole)) / 2 * pixels)
        return torch.cartesian_prod(*axes).view(-1, 2).to(heads.q_hnd)

    return grid(heads.size, (1, 1)), grid(heads.key_size, heads.cell)


def _diversity(heads: Heads) -> float:
    number, tokens = heads.q_hnd.shape[:2]
    if number == 1:
        return float("nan")
    queries = torch.linspace(0, tokens - 1, min(tokens, MAX_QUERIES)).round().long().to(heads.q_hnd.device)
    total = 0.0
    for some in queries.split(16):
        maps_hQm = on_tokens(heads, rows(heads, some)).flatten(2)
        pairs = list(combinations(range(number), 2))
        total += sum(float((maps_hQm[a] - maps_hQm[b]).abs().sum()) / 2 for a, b in pairs) / len(pairs)
    return total / len(queries)
