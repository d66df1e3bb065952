"""Which tokens attend to which, and with what weights: the common form of all attention variants.

Tokens of a map are numbered row by row. A variant says for each of its heads how the map is divided into windows; the
weights are computed here, in parts of limited size, so that a map of 128 × 128 tokens fits into memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hrvit_lab.network.blocks import attention_map

Size = tuple[int, int]
MAX_ELEMENTS = 2**23
"""Attention weights that are computed at once: 32 MiB in float32."""


class Group(NamedTuple):
    """Windows of equal shape: N windows of n queries and m keys.

    Attributes:
        heads: the heads that use these windows.
        queries: numbers of tokens, (N, n).
        keys: numbers of keys, (N, m).
        bias: added to the scores of every window, (heads, n, m).
    """

    heads: slice
    queries: Tensor
    keys: Tensor
    bias: Tensor | None = None


class Heads(NamedTuple):
    """Queries, keys and values of one image, and who attends to whom.

    Every token of the map is a query exactly once per head.

    Attributes:
        q_hnd: (heads, tokens, channels per head).
        k_hmd, v_hmd: (heads, keys, channels per head).
        size: height and width of the map in tokens.
        groups: see `Group`.
        key_size: height and width of the map of keys.
        cell: tokens that one key stands for, in height and width; more than one where keys were merged.
        softmax: whether the weights are a softmax of scaled scores; otherwise they are the product of q and k.
        prefix: keys before those of the map (class tokens); as many queries precede it.
    """

    q_hnd: Tensor
    k_hmd: Tensor
    v_hmd: Tensor
    size: Size
    groups: tuple[Group, ...]
    key_size: Size
    cell: Size = (1, 1)
    softmax: bool = True
    prefix: int = 0


class Block(NamedTuple):
    """Attention weights of some windows.

    Attributes:
        heads, queries, keys: as in `Group`.
        weights: (N, heads, n, m), rows summing to 1.
    """

    heads: slice
    queries: Tensor
    keys: Tensor
    weights: Tensor


def blocks(heads: Heads) -> Iterator[Block]:
    """All attention weights, in parts of at most about ``MAX_ELEMENTS``."""
    for group in heads.groups:
        (N, n), m = group.queries.shape, group.keys.shape[1]
        h = len(range(len(heads.q_hnd))[group.heads])
        rows = max(1, min(n, MAX_ELEMENTS // (h * m)))
        windows = max(1, MAX_ELEMENTS // (h * m * rows))
        for first in range(0, N, windows):
            keys_Nm = group.keys[first : first + windows]
            for row in range(0, n, rows):
                queries_Nn = group.queries[first : first + windows, row : row + rows]
                bias = None if group.bias is None else group.bias[:, row : row + rows]
                q_Nhnd = heads.q_hnd[group.heads][:, queries_Nn].transpose(0, 1)
                k_Nhmd = heads.k_hmd[group.heads][:, keys_Nm].transpose(0, 1)
                yield Block(group.heads, queries_Nn, keys_Nm, weigh(heads, q_Nhnd, k_Nhmd, bias))


def weigh(heads: Heads, q_Nhnd: Tensor, k_Nhmd: Tensor, bias_hnm: Tensor | None) -> Tensor:
    """Attention weights, rows summing to 1: (N, h, n, m)."""
    if heads.softmax:
        return attention_map(q_Nhnd, k_Nhmd, bias_hnm)
    return q_Nhnd @ k_Nhmd.transpose(-2, -1)


def rows(heads: Heads, queries: Tensor) -> Tensor:
    """Dense attention weights of some queries: (heads, queries, keys), zero outside of a window.

    Args:
        queries: numbers of tokens, (Q,).
    """
    h, tokens, _ = heads.q_hnd.shape
    dense_hQm = heads.q_hnd.new_zeros(h, len(queries), heads.k_hmd.shape[1])
    for group in heads.groups:
        (_, n), m = group.queries.shape, group.keys.shape[1]
        place = queries.new_full((tokens,), -1)
        place[group.queries.flatten()] = torch.arange(group.queries.numel(), device=queries.device)
        (inside,) = (place[queries] >= 0).nonzero(as_tuple=True)
        step = max(1, MAX_ELEMENTS // (h * m * heads.q_hnd.shape[2]))
        for chosen in inside.split(step):
            at = place[queries[chosen]]
            keys_Qm = group.keys[at // n]
            bias_h1m = None if group.bias is None else group.bias[:, at % n].transpose(0, 1)[:, :, None]
            q_Qh1d = heads.q_hnd[group.heads][:, queries[chosen]].transpose(0, 1)[:, :, None]
            k_Qhmd = heads.k_hmd[group.heads][:, keys_Qm].transpose(0, 1)
            weights_hQm = weigh(heads, q_Qh1d, k_Qhmd, bias_h1m)[:, :, 0].transpose(0, 1)
            mine = dense_hQm[group.heads]
            mine[:, chosen] = mine[:, chosen].scatter(2, keys_Qm.expand_as(weights_hQm), weights_hQm)
    return dense_hQm


def on_tokens(heads: Heads, keys: Tensor) -> Tensor:
    """Weights of keys spread evenly over the tokens that each key stands for: (…, keys) → (…, H, W).

    Sums are kept, except for the weights of a prefix, which has no place on the map.
    """
    (H, W), (rows_, columns), (y, x) = heads.size, heads.key_size, heads.cell
    map_hw = keys[..., heads.prefix :].unflatten(-1, heads.key_size)
    if heads.cell == (1, 1):
        return map_hw
    # A key's last row of tokens may lie beyond the map; a map's last rows may belong to no key.
    tall = torch.tensor([min(y, H - i * y) for i in range(rows_)], device=keys.device)
    wide = torch.tensor([min(x, W - j * x) for j in range(columns)], device=keys.device)
    even = map_hw / (tall[:, None] * wide)
    spread = even.repeat_interleave(tall, -2).repeat_interleave(wide, -1)
    out = keys.new_zeros(*keys.shape[:-1], H, W)
    out[..., : spread.shape[-2], : spread.shape[-1]] = spread
    return out


def pulled(heads: Heads, amounts: Tensor) -> Tensor:
    """Amounts at queries moved to the keys that they attend to, mean over heads: (…queries) (n,) → (m,).

    This is the product of a row vector with the mean attention matrix; sums are kept.
    """
    out = amounts.new_zeros(heads.k_hmd.shape[1])
    for block in blocks(heads):
        moved_Nm = torch.einsum("Nn,Nhnm->Nm", amounts[block.queries], block.weights.to(amounts.dtype))
        out.index_add_(0, block.keys.flatten(), moved_Nm.flatten())
    return out / len(heads.q_hnd)
